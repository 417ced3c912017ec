"""Gradient descent on one client's examples, as code that a compiled call can hold.

The number of examples, and so of steps, is traced: clients of all sizes share one program, and none is
padded beyond its last batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from shoal.algorithms.model import Training
from shoal.examples import Examples
from shoal.key import Key
from shoal.models.convolution import canonical
from shoal.models.losses import one_a_row
from shoal.models.network import Params
from shoal.optimizers import sgd
from shoal.vector import Array

BATCH = 32
_CHUNK = 256  # rows of a whole-client gradient that are held at once

RowLoss = Callable[[Params, dict[str, Array], jax.Array], Float[Array, " rows"]]
"""The loss of every row of a batch, from parameters, columns and a key for dropout."""


@dataclass(frozen=True)
class _Batches:
    """How one client's examples are cut: rows to a batch, batches to an epoch, and the order's key."""

    width: int
    per_epoch: Any
    order: Key | None
    whole: bool

    @staticmethod
    def of(data: Examples, training: Training, key: Key) -> _Batches:
        whole = training.batch_size == "all"
        wanted = _CHUNK if whole else training.batch_size or BATCH
        width = min(int(wanted), data.longest)
        parts = (data.count + width - 1) // width
        shuffles = training.order == "shuffled" and not whole and data.longest > width
        return _Batches(width, 1 if whole else jnp.maximum(parts, 1), key.split("order") if shuffles else None, whole)


def descend(
    row_loss: RowLoss, params: Params, data: Examples, *, training: Training, round: Any, key: Key
) -> tuple[Params, Float[Array, 2]]:
    """The parameters after training; and the loss summed over the examples seen, with their number."""
    optimizer = (training.optimizer or sgd(0.1)).build(round)
    batches = _Batches.of(data, training, key)
    gradient = _whole_gradient if batches.whole else _batch_gradient
    loss_and_gradient = _loss_and_gradient(row_loss)

    def step(index: Any, carry: Any) -> Any:
        now, memory, seen = carry
        change, loss = gradient(loss_and_gradient, now, data, batches, index, key)
        if training.correction is not None:
            change = jax.tree.map(training.correction, change, now, params)
        change, memory = optimizer.update(change, memory, now)
        return optax.apply_updates(now, change), memory, seen + loss

    steps = training.epochs * batches.per_epoch if training.steps is None else training.steps
    steps = jnp.where(data.count > 0, steps, 0)
    start = (params, optimizer.init(params), jnp.zeros(2))
    now, _, seen = jax.lax.fori_loop(0, steps, step, start)
    return now, seen


def _loss_and_gradient(row_loss: RowLoss) -> Callable[..., Any]:
    def summed(params: Params, columns: dict[str, Array], present: Array, key: jax.Array) -> Any:
        losses = one_a_row(row_loss(params, columns, key), present.shape[0])
        total = jnp.sum(jnp.where(present, losses, 0.0))
        count = jnp.sum(present).astype(jnp.float32)
        return total / jnp.maximum(count, 1.0), jnp.stack([total, count])

    function = jax.grad(summed, has_aux=True)
    return canonical(function) if jax.default_backend() == "cpu" else function


def _batch_gradient(function: Any, params: Params, data: Examples, batches: _Batches, index: Any, key: Key) -> Any:
    """The mean gradient over one batch, and the sums of its losses."""
    order = None
    if batches.order is not None:
        order = batches.order.split(index // batches.per_epoch)
    columns, present = data.batch(index % batches.per_epoch, batches.width, order)
    return function(params, columns, present, key.split("noise", index).jax())


def _whole_gradient(function: Any, params: Params, data: Examples, batches: _Batches, index: Any, key: Key) -> Any:
    """The mean gradient over all examples, added up over parts of them, and the sums of their losses."""

    def add(part: Any, carry: Any) -> Any:
        columns, present = data.batch(part, batches.width)
        change, loss = function(params, columns, present, key.split("noise", index, part).jax())
        share = loss[1] / data.count
        return jax.tree.map(lambda total, now: total + share * now, carry[0], change), carry[1] + loss

    parts = (data.count + batches.width - 1) // batches.width
    return jax.lax.fori_loop(0, parts, add, (jax.tree.map(jnp.zeros_like, params), jnp.zeros(2)))
