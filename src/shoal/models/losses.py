"""Losses: what training lowers, what evaluation measures, and which labels make sense."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from shoal.errors import DataError, SettingError
from shoal.settings import whole
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
    """Softmax cross-entropy: outputs are one score a class, labels whole numbers from 0.

    Where a row has several labels, as a line of text has, its loss is their mean.
    """

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """log(sum(exp(outputs))) - outputs[label]."""
        return _by_row(optax.losses.softmax_cross_entropy_with_integer_labels(outputs, labels.astype(jnp.int32)))

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Accuracy."""
        return {"accuracy": _by_row((self.predict(outputs) == labels).astype(jnp.float32))}

    def predict(self, outputs: Array) -> Array:
        """The class with the highest score."""
        return jnp.argmax(outputs, axis=-1)

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if a label is no class, or labels and scores differ in shape."""
        _check_shape(labels, outputs[:-1], f"{outputs[-1]} scores")
        _check_classes(labels, outputs[-1])


@dataclass(frozen=True)
class MaskedCrossEntropy:
    """Softmax cross-entropy over several labels a row, of which those equal to `padding` do not count.

    A row's loss and accuracy are means over its labels that count; a row without any counts 0.
    """

    padding: int = 0

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """The mean of log(sum(exp(outputs))) - outputs[label] over a row's labels."""
        labels = labels.astype(jnp.int32)
        # A sum over all classes, because a gather's gradient is a scatter: a fifth of the time of 10,000 classes.
        chosen = jnp.sum(jnp.where(jnp.arange(outputs.shape[-1]) == labels[..., None], outputs, 0.0), axis=-1)
        return self._over_present(jax.nn.logsumexp(outputs, axis=-1) - chosen, labels)

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Accuracy."""
        return {"accuracy": self._over_present((self.predict(outputs) == labels).astype(jnp.float32), labels)}

    def _over_present(self, values: Array, labels: Array) -> Float[Array, " rows"]:
        present = (labels != self.padding).reshape(labels.shape[0], -1)
        total = jnp.sum(jnp.where(present, values.reshape(present.shape), 0.0), axis=1)
        return total / jnp.maximum(jnp.sum(present, axis=1), 1)

    def predict(self, outputs: Array) -> Array:
        """The class with the highest score."""
        return jnp.argmax(outputs, axis=-1)

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if a label is neither a class nor padding, or labels and scores differ in shape."""
        _check_shape(labels, outputs[:-1], f"{outputs[-1]} scores")
        _check_classes(np.where(labels == self.padding, 0, labels), outputs[-1])


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Logistic loss: outputs are one log-odds a row, labels 0 or 1."""

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """softplus(z) - z * label. (log1p(exp(-|z|)) has a wrong gradient at 0 in JAX.)"""
        logits = outputs.reshape(labels.shape)
        return jax.nn.softplus(logits) - logits * labels

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Accuracy."""
        return {"accuracy": (self.predict(outputs) == labels).astype(jnp.float32)}

    def predict(self, outputs: Array) -> Array:
        """1 where the log-odds are over 0."""
        return (outputs > 0).astype(jnp.int32).reshape(outputs.shape[0])

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if a label is neither 0 nor 1, or the network has more than one output."""
        if math.prod(outputs) != 1:
            raise DataError(f"this loss is of one log-odds a row, and the network gives {outputs}: use cross_entropy")
        _check_shape(labels, (), "one log-odds")
        _check_classes(labels, 2)


@dataclass(frozen=True)
class SquaredError:
    """Half the squared difference; outputs and labels are numbers. Where a row has several, their mean."""

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """(output - label)^2 / 2."""
        return _by_row(0.5 * jnp.square(outputs.reshape(labels.shape) - labels))

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """The absolute error."""
        return {"absolute error": _by_row(jnp.abs(outputs.reshape(labels.shape) - labels))}

    def predict(self, outputs: Array) -> Array:
        """The outputs; one a row where there is one."""
        return outputs.reshape(outputs.shape[0]) if outputs.shape[1:] == (1,) else outputs

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if labels are not numbers, or not as many a row as outputs."""
        _check_shape(labels, () if outputs == (1,) else outputs, f"outputs of shape {outputs}")
        if not np.issubdtype(labels.dtype, np.number):
            raise DataError(f"this model predicts numbers, and the labels are {labels.dtype}")


@dataclass(frozen=True)
class Custom:
    """A function of outputs and labels that gives the loss of every row."""

    function: Callable[[Array, Array], Array]

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """The function's."""
        return one_a_row(self.function(outputs, labels), labels.shape[0])

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


def next_symbol(padding: int | None) -> Loss:
    """The loss of a language model; labels equal to `padding` do not count.

    >>> next_symbol(None), next_symbol(0)
    (CrossEntropy(), MaskedCrossEntropy(padding=0))
    """
    if padding is None:
        return CrossEntropy()
    return MaskedCrossEntropy(whole(padding, "padding is a symbol, or -1", least=-1))


def one_a_row(losses: Array, rows: int) -> Float[Array, " rows"]:
    """The losses; SettingError if they are not one number for each row."""
    if losses.shape != (rows,):
        raise SettingError(f"a loss gives one number for each of {rows} rows, not shape {losses.shape}")
    return losses


def _by_row(values: Array) -> Float[Array, " rows"]:
    return values if values.ndim == 1 else jnp.mean(values.reshape(values.shape[0], -1), axis=1)


def _check_shape(labels: np.ndarray[Any, Any], wanted: tuple[int, ...], beside: str) -> None:
    if labels.shape[1:] != wanted:
        column = labels.ndim == 2 and labels.shape[1] == 1 and wanted == ()
        fix = ": a column of labels becomes one label a row by y.ravel()" if column else ""
        raise DataError(f"a row's labels have shape {labels.shape[1:]}, and shape {wanted} goes with {beside}{fix}")


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
