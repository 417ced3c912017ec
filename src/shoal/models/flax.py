"""flax modules as federated models, through their pure init and apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from shoal.errors import UnsupportedError
from shoal.extras import needed
from shoal.models.jax import JaxModel
from shoal.models.losses import LossName, loss
from shoal.models.network import Params
from shoal.vector import Array

_loss = loss


@dataclass(frozen=True)
class FlaxNetwork:
    """A linen module; `training` names the argument that tells it to train, if it has one."""

    module: Any
    shape: tuple[int, ...]
    dtype: str
    training: str | None

    def init(self, key: jax.Array) -> Params:
        """The module's parameters."""
        example = jnp.zeros((1, *self.shape), self.dtype)
        mood = {} if self.training is None else {self.training: False}
        variables = dict(self.module.init({"params": key, "dropout": key}, example, **mood))
        params = variables.pop("params", {})
        if variables:
            raise UnsupportedError(
                f"{type(self.module).__name__} keeps {', '.join(variables)} beside its parameters, which would have to "
                "be averaged too: use a layer without running state, such as GroupNorm for BatchNorm"
            )
        return params

    def apply(self, params: Params, x: Array) -> Array:
        """Outputs, as in evaluation."""
        mood = {} if self.training is None else {self.training: False}
        return self.module.apply({"params": params}, x, **mood)

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """Outputs, as in training: the module may ask for a "dropout" key."""
        mood = {} if self.training is None else {self.training: True}
        return self.module.apply({"params": params}, x, **mood, rngs={"dropout": key})


def from_flax(
    module: Any,
    *,
    shape: tuple[int, ...],
    loss: LossName | Callable[[Array, Array], Array],
    dtype: str = "float32",
    training: str | None = None,
) -> JaxModel:
    """A model from a flax linen module that takes rows of a shape.

    `training` is the name of the module's argument that is True in training, such as "train". UnsupportedError
    if the module keeps state beside its parameters.

    >>> from flax import linen
    >>> from_flax(linen.Dense(10), shape=(4,), loss="cross_entropy").layout.size
    50
    """
    linen = needed("flax.linen", "flax")
    if not isinstance(module, linen.Module):
        raise UnsupportedError(f"from_flax takes a flax linen module, not a {type(module).__name__}")
    model = JaxModel(FlaxNetwork(module, tuple(shape), dtype, training), _loss(loss))
    model.layout.size  # noqa: B018  traces the module once, so that one that cannot be used is refused here
    return model
