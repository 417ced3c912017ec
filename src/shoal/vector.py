"""One flat vector with a layout: what every client sends and every server keeps.

Clipping, compression, masks, noise and sums are functions on one-dimensional arrays. Only a model adapter
knows what the numbers mean; the layout is how it finds them again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num

from shoal.errors import SettingError

if TYPE_CHECKING:
    Array = Any
else:
    Array = np.ndarray | jax.Array
"""A NumPy array, or a JAX array that may be traced. Code on vectors is written for both."""

Vector = Num[Array, " size"]
"""A flat vector: float32 (float64 for exact statistics), or integers once it is on a grid."""


@dataclass(frozen=True)
class Part:
    """One named array inside a vector."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Names, shapes and dtypes of the arrays inside one flat vector, in order.

    `dtype` is the vector's own; each part returns to its dtype when the vector is taken apart.

    >>> layout = Layout((Part("weights", (2, 3)), Part("bias", (3,))))
    >>> layout.size, layout.offsets
    (9, (0, 6))
    >>> vector = layout.flatten({"weights": np.ones((2, 3)), "bias": np.zeros(3)})
    >>> layout.unflatten(vector)["weights"].shape
    (2, 3)
    """

    parts: tuple[Part, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(set(names)) < len(names):
            raise SettingError(f"a layout needs different names, not {', '.join(names)}")

    @cached_property
    def size(self) -> int:
        """The length of the vector."""
        return sum(part.size for part in self.parts)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each part begins."""
        ends = np.cumsum([0, *(part.size for part in self.parts)])
        return tuple(int(end) for end in ends[:-1])

    @property
    def size_bytes(self) -> int:
        """How many bytes the vector takes."""
        return self.size * np.dtype(self.dtype).itemsize

    def flatten(self, arrays: Mapping[str, Array]) -> Vector:
        """One vector from the named arrays; SettingError if a name or a shape does not fit."""
        if arrays.keys() != {part.name for part in self.parts}:
            wanted = ", ".join(part.name for part in self.parts)
            raise SettingError(f"this layout holds {wanted}; the arrays given are {', '.join(arrays)}")
        flat: list[Any] = []
        for part in self.parts:
            array = arrays[part.name]
            if tuple(array.shape) != part.shape:
                raise SettingError(f"{part.name} has shape {tuple(array.shape)}, the layout says {part.shape}")
            flat.append(array.reshape(-1).astype(self.dtype))
        if not flat:
            return np.zeros(0, self.dtype)
        if not isinstance(flat[0], jax.Array):
            return np.concatenate(flat)
        vector = jnp.zeros(self.size, self.dtype)  # part by part: six times as fast as XLA's concatenation on a CPU
        for piece, start in zip(flat, self.offsets, strict=True):
            vector = jax.lax.dynamic_update_slice(vector, piece, (start,))
        return vector

    def unflatten(self, vector: Vector) -> dict[str, Array]:
        """The named arrays of a vector."""
        if tuple(vector.shape) != (self.size,):
            raise SettingError(f"this layout takes a vector of {self.size}, not of shape {tuple(vector.shape)}")
        return {
            part.name: vector[start : start + part.size].reshape(part.shape).astype(part.dtype)
            for part, start in zip(self.parts, self.offsets, strict=True)
        }

    def digest(self) -> str:
        """SHA-256 of the layout, in hexadecimal; equal layouts have equal digests everywhere."""
        text = json.dumps([self.dtype, [[part.name, part.shape, part.dtype] for part in self.parts]])
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def of(arrays: Mapping[str, Array], *, dtype: str = "float32") -> Layout:
        """The layout of the given arrays, in the order given."""
        parts = tuple(Part(name, tuple(a.shape), str(a.dtype)) for name, a in arrays.items())
        return Layout(parts, dtype)


def namespace(array: Array) -> Any:
    """`jax.numpy` for a JAX array, `numpy` for anything else."""
    return jnp if isinstance(array, jax.Array) else np


def norm(vector: Vector) -> Float[Array, ""]:
    """The L2 norm of a vector, at least as exact as log2(size) roundings of its dtype.

    A plain running sum in float32 loses up to size roundings, which for millions of parameters is more
    than a clipping bound may be wrong by. NumPy vectors are measured in float64; traced ones by adding
    halves to halves (pairwise summation, Higham 1993, section 3).
    """
    if not isinstance(vector, jax.Array):
        with np.errstate(invalid="ignore"):  # a NaN that signals is one like others
            exact = vector.astype(np.float64)
        return np.sqrt(np.dot(exact, exact))
    largest = jnp.max(jnp.abs(vector), initial=0)
    # XLA may multiply by 1 / scale, and takes numbers under 2**-126 for 0: a vector of 2**127 would have no length.
    scale = jnp.clip(jnp.where(jnp.isfinite(largest), largest, 1), 2.0**-125, 2.0**125)
    return scale * jnp.sqrt(_pairwise(jnp.square(vector / scale)))  # a number of 1e20 has no square in float32


def norm1(vector: Vector) -> Float[Array, ""]:
    """The L1 norm of a vector, the sum of its numbers' sizes, as exact as `norm`."""
    sizes = namespace(vector).abs(vector)
    if isinstance(vector, jax.Array):
        return _pairwise(sizes)
    with np.errstate(invalid="ignore"):  # as in `norm`
        return np.sum(sizes, dtype=np.float64)


def is_finite(vector: Vector) -> Any:
    """Whether no number of a vector is NaN or infinite; traced if the vector is."""
    return namespace(vector).all(namespace(vector).isfinite(vector))


def _pairwise(numbers: Vector) -> Any:
    while numbers.size > 32:
        numbers = jnp.pad(numbers, (0, numbers.size % 2))
        numbers = numbers[: numbers.size // 2] + numbers[numbers.size // 2 :]
    return jnp.sum(numbers)
