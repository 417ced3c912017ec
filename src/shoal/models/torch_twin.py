"""The makers of torch modules that take the vectors of a JAX model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.key import Key
from shoal.models.jax import JaxModel
from shoal.models.network import ChecksInputs
from shoal.vector import Vector


@dataclass(frozen=True)
class Twin:
    """A function that makes a torch module of a JAX model's layout, and starts where that model starts."""

    model: JaxModel
    build: Callable[[Any], Any]

    def __call__(self) -> Any:
        """A module for the model's network."""
        return self.build(self.model.network)

    def start(self, key: Key) -> Vector:
        """The JAX model's weights before the first round: one seed is one start in both."""
        return np.array(self.model.init(key))

    def check(self, x: np.ndarray[Any, Any]) -> None:
        """DataError if the network does not take the rows."""
        if isinstance(self.model.network, ChecksInputs):
            self.model.network.check(x)
