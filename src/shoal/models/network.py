"""Networks: parameters from a key, outputs from parameters. The pure pair that JAX models are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

from shoal.vector import Array

Params = Any
"""A tree of arrays."""


class Network(Protocol):
    """A hashable value with two pure functions, one of them in two moods."""

    def init(self, key: jax.Array) -> Params:
        """Parameters from a JAX key."""
        ...

    def apply(self, params: Params, x: Array) -> Array:
        """Outputs of rows, as in evaluation."""
        ...

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """Outputs of rows, as in training: with dropout, if it has any."""
        ...


@runtime_checkable
class ChecksInputs(Protocol):
    """A network that takes only some values, such as the symbols of a vocabulary."""

    def check(self, x: np.ndarray[Any, Any]) -> None:
        """DataError if a row holds another."""
        ...


@dataclass(frozen=True)
class Functions:
    """A network from functions: `init(key)`, `apply(params, x)`, and `train(params, x, key)` if it differs."""

    make: Callable[[jax.Array], Params]
    use: Callable[[Params, Array], Array]
    learn: Callable[[Params, Array, jax.Array], Array] | None = None

    def init(self, key: jax.Array) -> Params:
        """As given."""
        return self.make(key)

    def apply(self, params: Params, x: Array) -> Array:
        """As given."""
        return self.use(params, x)

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """As given, or as in evaluation."""
        return self.use(params, x) if self.learn is None else self.learn(params, x, key)
