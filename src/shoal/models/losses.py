"""Losses: what training lowers, what evaluation measures, and which labels make sense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from shoal.errors import DataError, SettingError
from shoal.vector import Array


class Loss(Protocol):
    """A loss of one example at a time, with the metrics that go with it."""

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """The loss of every row."""
        ...

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Further metrics of every row."""
        ...

    def predict(self, outputs: Array) -> Array:
        """The label, or the number, that the outputs say."""
        ...

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if the labels make no sense for outputs of this shape (without rows)."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """Softmax cross-entropy: outputs are one score a class, labels whole numbers from 0."""

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """log(sum(exp(outputs))) - outputs[label]."""
        return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Accuracy."""
        return {"accuracy": (self.predict(outputs) == labels).astype(jnp.float32)}

    def predict(self, outputs: Array) -> Array:
        """The class with the highest score."""
        return jnp.argmax(outputs, axis=-1)

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if a label is no class."""
        _check_classes(labels, outputs[-1])


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Logistic loss: outputs are one log-odds a row, labels 0 or 1."""

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """softplus(z) - z * label. (log1p(exp(-|z|)) has a wrong gradient at 0 in JAX.)"""
        logits = outputs.reshape(labels.shape)
        return jax.nn.softplus(logits) - logits * labels

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Accuracy."""
        right = self.predict(outputs).reshape(labels.shape) == labels
        return {"accuracy": right.astype(jnp.float32)}

    def predict(self, outputs: Array) -> Array:
        """1 where the log-odds are over 0."""
        return (outputs > 0).astype(jnp.int32)

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if a label is neither 0 nor 1."""
        _check_classes(labels, 2)


@dataclass(frozen=True)
class SquaredError:
    """Half the squared difference; outputs and labels are numbers."""

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """(output - label)^2 / 2."""
        return 0.5 * jnp.square(outputs.reshape(labels.shape) - labels)

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """The absolute error."""
        return {"absolute error": jnp.abs(outputs.reshape(labels.shape) - labels)}

    def predict(self, outputs: Array) -> Array:
        """The outputs."""
        return outputs

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if labels are not numbers."""
        if not np.issubdtype(labels.dtype, np.number):
            raise DataError(f"this model predicts numbers, and the labels are {labels.dtype}")


@dataclass(frozen=True)
class Custom:
    """A function of outputs and labels that gives the loss of every row."""

    function: Callable[[Array, Array], Array]

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """The function's."""
        loss = self.function(outputs, labels)
        if loss.shape != labels.shape[:1]:
            raise SettingError(f"a loss gives one number for each of {labels.shape[0]} rows, not shape {loss.shape}")
        return loss

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """None."""
        return {}

    def predict(self, outputs: Array) -> Array:
        """The outputs."""
        return outputs

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """Nothing is known of them."""


LossName = Literal["cross_entropy", "binary_cross_entropy", "squared_error"]
_LOSSES: dict[str, Loss] = {
    "cross_entropy": CrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "squared_error": SquaredError(),
}


def loss(of: LossName | Callable[[Array, Array], Array]) -> Loss:
    """The loss of a name, or one made of a function of outputs and labels.

    >>> loss("squared_error")
    SquaredError()
    """
    if callable(of):
        return Custom(of)
    if of not in _LOSSES:
        raise SettingError(f"a loss is a function or one of {', '.join(_LOSSES)}, not {of!r}")
    return _LOSSES[of]


def _check_classes(labels: np.ndarray[Any, Any], classes: int) -> None:
    whole = np.issubdtype(labels.dtype, np.integer) or labels.dtype == bool
    if not whole and not (np.issubdtype(labels.dtype, np.floating) and bool((labels == np.round(labels)).all())):
        raise DataError(f"labels are whole numbers from 0 to {classes - 1}; these are {labels.dtype}")
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"labels are whole numbers from 0 to {classes - 1} for {classes} classes; {int(wrong.sum())} of "
            f"{len(labels)} rows lie outside, the first is row {row}"
        )
