"""JAX models: a network and a loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from shoal.algorithms.model import Trained, Training
from shoal.errors import DataError, UnsupportedError
from shoal.examples import Examples
from shoal.key import Key
from shoal.models.descent import descend
from shoal.models.losses import Loss, LossName, loss
from shoal.models.network import ChecksInputs, Functions, Network, Params
from shoal.programs import compiled
from shoal.vector import Array, Layout, Part, Vector

_ROWS = 1024  # rows that are measured at once
_OUTPUTS = 1 << 24  # and outputs: 64 MB of scores for each symbol at each place of a text


@dataclass(frozen=True)
class JaxModel:
    """A network with the loss that trains it; it reads the columns `x` and `y`.

    >>> from shoal import models
    >>> models.logistic(13).layout.size
    14
    """

    network: Network
    loss: Loss
    x: str = field(default="x", kw_only=True)
    y: str = field(default="y", kw_only=True)

    @property
    def traceable(self) -> bool:
        """True."""
        return True

    @property
    def additive(self) -> bool:
        """False: updates are averaged."""
        return False

    @cached_property
    def _shapes(self) -> Params:
        return jax.eval_shape(self.network.init, jax.random.key(0))

    @property
    def layout(self) -> Layout:
        """One part for each array of the parameters, named by its path."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        paths = jax.tree_util.tree_leaves_with_path(self._shapes)
        parts = (
            Part(jax.tree_util.keystr(path, simple=True, separator="/"), tuple(leaf.shape), str(leaf.dtype))
            for path, leaf in paths
        )
        return Layout(tuple(parts))

    def params(self, vector: Vector) -> Params:
        """The parameters, in the network's own tree."""
        leaves = self.layout.unflatten(vector).values()
        return jax.tree.unflatten(jax.tree.structure(self._shapes), list(leaves))

    def vector(self, params: Params) -> Vector:
        """The vector of parameters in the network's own tree."""
        names = [part.name for part in self.layout.parts]
        return self.layout.flatten(dict(zip(names, jax.tree.leaves(params), strict=True)))

    def accept(self, training: Training) -> None:
        """Trains in every way."""

    def check(self, data: Examples) -> None:
        """DataError if a column is missing, the inputs do not fit the network, or a label makes no sense."""
        inputs, labels = data.rows(self.x), data.rows(self.y)
        if isinstance(self.network, ChecksInputs):
            self.network.check(inputs)
        try:
            row = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), jax.dtypes.canonicalize_dtype(inputs.dtype))
            outputs = jax.eval_shape(self.network.apply, self._shapes, row)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"rows of {self.x!r} have shape {inputs.shape[1:]} and dtype {inputs.dtype}, which this network "
                f"does not take: {str(error).splitlines()[0]}"
            ) from error
        self.loss.check(labels, tuple(outputs.shape[1:]) or (1,))

    def init(self, key: Key) -> Vector:
        """The network's own initial parameters."""
        return self.vector(self.network.init(key.jax()))

    def train(self, vector: Vector, data: Examples, *, training: Training, round: Any, key: Key) -> Trained:
        """Gradient descent on the mean loss of the client's batches."""

        def row_loss(params: Params, columns: dict[str, Array], noise: jax.Array) -> Float[Array, " rows"]:
            return self.loss(self.network.train(params, columns[self.x], noise), columns[self.y])

        # Without the barrier XLA moves the cutting of the vector into the loop over batches.
        start = jax.lax.optimization_barrier(self.params(vector))
        params, seen = descend(row_loss, start, data, training=training, round=round, key=key)
        return Trained(self.vector(params) - vector, {"loss": seen})

    def measure(self, vector: Vector, columns: Mapping[str, Array]) -> Mapping[str, Float[Array, " rows"]]:
        """The loss and its metrics for every row."""
        most = at_once(self, np.shape(columns[self.x])[1:], columns[self.x].dtype)
        chunks = [_measure(self, vector, chunk) for chunk in _chunks({k: columns[k] for k in (self.x, self.y)}, most)]
        return {
            name: np.concatenate([np.asarray(chunk[name]) for chunk in chunks])[: len(columns[self.y])]
            for name in chunks[0]
        }

    def outputs(self, vector: Vector, x: Array) -> np.ndarray[Any, Any]:
        """What the network says of every row: scores, log-odds or numbers."""
        x = np.asarray(x)
        most = at_once(self, x.shape[1:], x.dtype)
        chunks = [np.asarray(_outputs(self, vector, chunk[self.x])) for chunk in _chunks({self.x: x}, most)]
        return np.concatenate(chunks)[: len(x)]

    def predict(self, vector: Vector, x: Array) -> np.ndarray[Any, Any]:
        """The label, or the number, of every row."""
        return np.asarray(self.loss.predict(self.outputs(vector, x)))

    def fitted(self, vector: Vector) -> Any:
        """The framework's own model with these weights, of a network that has one: a Keras model."""
        make = getattr(self.network, "fitted", None)
        if make is None:
            raise UnsupportedError(f"{type(self.network).__name__} has no model of its own: see params(vector)")
        return make(self.params(np.asarray(vector)))


def from_functions(
    init: Callable[[jax.Array], Params],
    apply: Callable[[Params, Array], Array],
    *,
    loss: LossName | Callable[[Array, Array], Array],
    train: Callable[[Params, Array, jax.Array], Array] | None = None,
) -> JaxModel:
    """A model from two pure functions: `init(key)` gives parameters, `apply(params, x)` outputs.

    `train(params, x, key)` stands for `apply` in training where it differs, as with dropout. `loss` is a name,
    or a function of outputs and labels that gives the loss of every row.

    >>> import jax.numpy as jnp
    >>> model = from_functions(lambda key: {"w": jnp.zeros(3)}, lambda p, x: x @ p["w"], loss="squared_error")
    >>> model.layout.parts
    (Part(name='w', shape=(3,), dtype='float32'),)
    """
    return JaxModel(Functions(init, apply, train), _loss(loss))


_loss = loss


@compiled()
def _measure(model: JaxModel, vector: Vector, columns: dict[str, Array]) -> dict[str, Array]:
    outputs = model.network.apply(model.params(vector), columns[model.x])
    labels = columns[model.y]
    return {"loss": model.loss(outputs, labels), **model.loss.metrics(outputs, labels)}


@compiled()
def _outputs(model: JaxModel, vector: Vector, x: Array) -> Array:
    return model.network.apply(model.params(vector), x)


@lru_cache
def at_once(model: JaxModel, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """How many rows of a shape are measured at once, a power of two."""
    row = jax.ShapeDtypeStruct((1, *shape), jax.dtypes.canonicalize_dtype(dtype))
    outputs = jax.eval_shape(model.network.apply, jax.eval_shape(model.network.init, jax.random.key(0)), row)
    rows = min(_ROWS, max(_OUTPUTS // max(math.prod(outputs.shape), 1), 1))
    return 1 << (rows.bit_length() - 1)


def _chunks(columns: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Rows in pieces of few different sizes, the last filled up with zeros: each size is compiled once."""
    count = len(next(iter(columns.values())))
    width = min(most, 1 << max(count - 1, 0).bit_length())
    missing = -count % width if count else width
    padded = {name: _padded(np.asarray(column), missing) if missing else column for name, column in columns.items()}
    return [{n: c[i : i + width] for n, c in padded.items()} for i in range(0, count + missing, width)]


def _padded(column: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """The column with that many rows of zeros after it."""
    return np.concatenate([column, np.zeros((rows, *column.shape[1:]), column.dtype)])
