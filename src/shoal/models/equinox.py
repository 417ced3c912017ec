"""Equinox modules as federated models: their arrays are the parameters, the rest is the network."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from shoal.errors import UnsupportedError
from shoal.extras import needed
from shoal.models.jax import JaxModel
from shoal.models.losses import LossName, loss
from shoal.models.network import Params
from shoal.vector import Array

_loss = loss


@dataclass(frozen=True)
class EquinoxNetwork:
    """A function from a JAX key to a module that takes one row."""

    make: Callable[[jax.Array], Any]

    @cached_property
    def _equinox(self) -> Any:
        return importlib.import_module("equinox")

    @cached_property
    def _rest(self) -> Any:
        """Everything of the module that is not a parameter."""
        module = self.make(jax.random.key(0))
        if not isinstance(module, self._equinox.Module) or not callable(module):
            raise UnsupportedError(
                f"from_equinox takes a function that makes a callable module, not a {type(module).__name__}"
            )
        return self._equinox.partition(module, self._equinox.is_inexact_array)[1]

    @cached_property
    def _takes_key(self) -> bool:
        return "key" in inspect.signature(type(self._rest).__call__).parameters

    def init(self, key: jax.Array) -> Params:
        """The parameters of a new module."""
        return self._equinox.filter(self.make(key), self._equinox.is_inexact_array)

    def apply(self, params: Params, x: Array) -> Array:
        """Outputs of rows, the module called on each."""
        return jax.vmap(self._equinox.nn.inference_mode(self._equinox.combine(params, self._rest)))(x)

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """Outputs of rows, each with a key of its own if the module takes one."""
        module = self._equinox.combine(params, self._rest)
        if not self._takes_key:
            return jax.vmap(module)(x)
        return jax.vmap(lambda row, own: module(row, key=own))(x, jax.random.split(key, x.shape[0]))


def from_equinox(make: Callable[[jax.Array], Any], *, loss: LossName | Callable[[Array, Array], Array]) -> JaxModel:
    """A model from a function that makes an Equinox module from a JAX key; the module takes one row.

    >>> import equinox
    >>> make = lambda key: equinox.nn.MLP(4, 3, width_size=8, depth=1, key=key)
    >>> from_equinox(make, loss="cross_entropy").layout.size
    67
    """
    needed("equinox", "equinox")
    network = EquinoxNetwork(make)
    network._rest  # noqa: B018  # pyright: ignore  one that cannot be used is refused here
    return JaxModel(network, _loss(loss))
