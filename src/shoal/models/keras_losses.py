"""Losses of Keras as losses of Shoal: the same numbers, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from shoal.describe import describe
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.extras import needed
from shoal.models.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError, loss
from shoal.vector import Array

Kind = Literal["classes", "one-hot", "binary", "numbers", "other"]

_KINDS: dict[str, Kind] = {
    "sparsecategoricalcrossentropy": "classes",
    "categoricalcrossentropy": "one-hot",
    "binarycrossentropy": "binary",
    "meansquarederror": "numbers",
    "meanabsoluteerror": "numbers",
    "meansquaredlogarithmicerror": "numbers",
    "meanabsolutepercentageerror": "numbers",
    "huber": "numbers",
    "logcosh": "numbers",
}
_OURS = ("cross_entropy", "binary_cross_entropy", "squared_error")


@dataclass(frozen=True)
class KerasLoss:
    """A loss of Keras, with the metrics and the checks of its kind.

    `settings` tells it apart from others; `function` takes labels and outputs, in the order that Keras has.
    """

    settings: str
    kind: Kind
    from_logits: bool
    function: Callable[[Any, Any], Any] = field(compare=False, repr=False)

    def __call__(self, outputs: Array, labels: Array) -> Float[Array, " rows"]:
        """Keras' own, the mean where a row has several."""
        if self.kind != "classes" and outputs.ndim == labels.ndim + 1 and outputs.shape[-1] == 1:
            labels = labels[..., None]
        values = self.function(labels, outputs)
        if values.shape[:1] != labels.shape[:1]:
            raise SettingError(f"a loss gives a number for each of {labels.shape[0]} rows, not shape {values.shape}")
        return _by_row(values)

    def metrics(self, outputs: Array, labels: Array) -> dict[str, Float[Array, " rows"]]:
        """Accuracy for labels, the absolute error for numbers, nothing for other losses."""
        match self.kind:
            case "numbers":
                return {"absolute error": _by_row(jnp.abs(outputs.reshape(labels.shape) - labels))}
            case "other":
                return {}
            case "one-hot":
                right = self.predict(outputs) == jnp.argmax(labels, axis=-1)
            case _:
                right = self.predict(outputs).reshape(labels.shape) == labels
        return {"accuracy": _by_row(right.astype(jnp.float32))}

    def predict(self, outputs: Array) -> Array:
        """The class, or the number, that the outputs say."""
        match self.kind:
            case "classes" | "one-hot":
                return jnp.argmax(outputs, axis=-1)
            case "binary":
                said = (outputs > (0.0 if self.from_logits else 0.5)).astype(jnp.int32)
                return said[..., 0] if said.shape[1:] == (1,) else said
            case "numbers":
                return SquaredError().predict(outputs)
            case "other":
                return outputs

    def check(self, labels: np.ndarray[Any, Any], outputs: tuple[int, ...]) -> None:
        """DataError if labels make no sense for such outputs."""
        match self.kind:
            case "classes":
                CrossEntropy().check(labels, outputs)
            case "binary" if outputs == (1,) and labels.ndim == 1:
                BinaryCrossEntropy().check(labels, outputs)
            case "numbers":
                SquaredError().check(labels, outputs)
            case "one-hot" | "binary" if labels.shape[1:] != outputs:
                raise DataError(
                    f"a row's labels have shape {labels.shape[1:]}, and this loss compares them with outputs of shape "
                    f"{outputs}: encode them so, or use sparse_categorical_crossentropy for whole numbers"
                )
            case _:
                pass


def keras_loss(model: Any, given: Any) -> Loss:
    """The loss that was given, by a name of Shoal or as `compile` takes it; else the one the model has.

    SettingError if there is none; UnsupportedError if it is not a mean over the rows of one output.
    """
    wanted = model.loss if given is None else given
    if wanted is None:
        raise SettingError(
            "this Keras model was not compiled with a loss: compile it, or write from_keras(model, loss='mse')"
        )
    if isinstance(wanted, str) and wanted in _OURS:
        return loss(wanted)
    if isinstance(wanted, dict | list | tuple):
        raise UnsupportedError("a federated model has one output and one loss, not a list or a dict of losses")
    return _from_keras(wanted)


def _from_keras(wanted: Any) -> KerasLoss:
    keras = needed("keras", "keras")
    try:
        found = keras.losses.get(wanted)
    except (ValueError, TypeError) as error:
        raise SettingError(
            f"a loss is one of {', '.join(_OURS)}, or what compile takes, such as "
            f"'sparse_categorical_crossentropy', not {wanted!r}"
        ) from error
    if not isinstance(found, keras.losses.Loss):
        name = getattr(found, "__name__", type(found).__name__)
        return KerasLoss(json.dumps(describe(found), sort_keys=True), _kind(name), False, found)
    if found.reduction not in ("sum_over_batch_size", "mean"):
        raise UnsupportedError(
            f"{type(found).__name__} reduces by {found.reduction!r}; training takes the mean over a batch: leave "
            "reduction as it is"
        )
    # Not its get_config, which leaves out Huber's delta, and what a loss of the user's own does not tell.
    kept = {name: value for name, value in vars(found).items() if name not in ("name", "_dtype_policy")}
    settings = [describe(type(found)), describe(kept)]
    logits = bool(found.get_config().get("from_logits", False))
    return KerasLoss(json.dumps(settings, sort_keys=True), _kind(type(found).__name__), logits, found.call)


def _kind(name: str) -> Kind:
    return _KINDS.get(name.replace("_", "").lower(), "other")


def _by_row(values: Array) -> Float[Array, " rows"]:
    return values if values.ndim == 1 else jnp.mean(values.reshape(values.shape[0], -1), axis=1)
