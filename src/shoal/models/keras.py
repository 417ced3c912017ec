"""Keras 3 models as federated models, through their pure `stateless_call` on the JAX backend."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import warnings
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.describe import Description, describe
from shoal.errors import PlanError, SettingError, UnsupportedError
from shoal.extras import needed
from shoal.models.jax import JaxModel
from shoal.models.keras_losses import keras_loss
from shoal.models.network import Params
from shoal.vector import Array

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras reads it once, when it is first imported


@dataclass(frozen=True)
class KerasNetwork:
    """A Keras model as a pure function of its trainable variables; the others stay what they were.

    `fingerprint` is the digest of what the model is made of and of the weights that it had when it was taken.
    """

    name: str
    fingerprint: str
    model: Any = field(compare=False, repr=False)
    start: dict[str, np.ndarray[Any, Any]] = field(compare=False, repr=False)
    fixed: tuple[np.ndarray[Any, Any] | None, ...] = field(compare=False, repr=False)
    """The variables that are not trained; None for the state of a random generator."""

    def init(self, key: jax.Array) -> Params:
        """The weights that the model had when it was taken."""
        return {name: jnp.asarray(array) for name, array in self.start.items()}

    def apply(self, params: Params, x: Array) -> Array:
        """Outputs, as in evaluation."""
        return self._call(params, x, jax.random.key(0), training=False)

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """Outputs, as in training: every random generator of the model starts at a part of the key."""
        return self._call(params, x, key, training=True)

    def _call(self, params: Params, x: Array, key: jax.Array, *, training: bool) -> Array:
        fixed = [
            jax.random.key_data(jax.random.fold_in(key, i)) if array is None else jnp.asarray(array)
            for i, array in enumerate(self.fixed)
        ]
        mood = {"training": training} if "training" in inspect.signature(self.model.call).parameters else {}
        outputs, after, penalties = self.model.stateless_call(
            [params[name] for name in self.start], fixed, x, return_losses=True, **mood
        )
        unchanged = [kept is None or now is was for kept, now, was in zip(self.fixed, after, fixed, strict=True)]
        self._refuse(outputs, len(penalties), unchanged)
        return outputs

    def _refuse(self, outputs: Any, penalties: int, unchanged: list[bool]) -> None:
        """UnsupportedError for what would be lost in silence: it is known once the model has been traced."""
        if not isinstance(outputs, jax.Array) or getattr(outputs, "_keras_mask", None) is not None:
            raise UnsupportedError(f"{self.name} gives several outputs, or a mask beside them; here it gives one array")
        if penalties:
            raise UnsupportedError(
                f"{self.name} adds {penalties} losses of its own, such as a kernel_regularizer's: leave them out, "
                "and give the client optimizer a decay, such as shoal.optimizer('adamw', learning_rate=0.001)"
            )
        if not all(unchanged):
            variables = zip(self.model.non_trainable_variables, unchanged, strict=True)
            paths = ", ".join(variable.path for variable, same in variables if not same)
            raise UnsupportedError(
                f"{self.name} changes {paths} while it trains, which would have to be averaged too: use a layer "
                "without running state, such as GroupNormalization or LayerNormalization for BatchNormalization, or "
                "freeze it by layer.trainable = False"
            )

    def fitted(self, params: Params) -> Any:
        """A Keras model of its own with these weights; it is compiled if the one that was taken is."""
        copy = _copied(self.model)
        for variable, array in zip(copy.trainable_variables, (params[name] for name in self.start), strict=True):
            variable.assign(array)
        for variable, array in zip(copy.non_trainable_variables, self.fixed, strict=True):
            if array is not None:
                variable.assign(array)
        return copy

    def describe(self) -> Description:
        """The name and the fingerprint."""
        return {"is": "shoal.KerasNetwork", "name": self.name, "fingerprint": self.fingerprint}


def from_keras(model: Any, *, loss: Any = None) -> JaxModel:
    """A model from a Keras 3 model on the JAX backend; a run starts from the weights that it has.

    The loss is the one that it was compiled with, or `loss`: what `compile` takes, or a name of Shoal's. Trainable
    variables travel, named by their path without the model's name; the others stay as they are. Dropout draws from
    the client's key. `fitted(vector)` of the result gives a Keras model back.

    UnsupportedError if Keras runs on another backend, or if the model changes other variables while it trains, has
    several inputs or outputs, or adds losses of its own. SettingError if it is not built, or there is no loss.

    >>> import keras
    >>> net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> from_keras(net, loss="cross_entropy").layout.size
    15
    """
    _check(model)
    known = keras_loss(model, loss)
    names = _names(model)
    fixed = tuple(None if _is_seed(model, v) else np.array(v.value) for v in model.non_trainable_variables)
    start = {name: np.array(v.value) for name, v in zip(names, model.trainable_variables, strict=True)}
    network = KerasNetwork(model.name, _fingerprint(model, start, fixed), model, start, fixed)
    taken = JaxModel(network, known)
    _try(taken)
    return taken


def _check(model: Any) -> None:
    keras = needed("keras", "keras")
    if not isinstance(model, keras.Model):
        raise UnsupportedError(f"from_keras takes a keras.Model, not a {type(model).__name__}")
    backend = keras.backend.backend()
    if backend != "jax":
        raise UnsupportedError(
            f"Keras runs on {backend} here, and Shoal needs it on JAX: set KERAS_BACKEND=jax in the environment before "
            "Keras is imported"
        )
    if not model.built:
        raise SettingError(
            f"{model.name} is not built, so it has no weights yet: begin it with keras.Input(shape), or call "
            "model.build((None, features))"
        )
    if not model.trainable_variables:
        raise SettingError(f"{model.name} has no trainable weights, so there is nothing to train")
    inputs, outputs = getattr(model, "inputs", None) or [0], getattr(model, "outputs", None) or [0]
    if len(inputs) != 1 or len(outputs) != 1:
        raise UnsupportedError(
            f"{model.name} has {len(inputs)} inputs and {len(outputs)} outputs; a federated model reads one column and "
            "gives one"
        )
    kinds = {variable.path: variable.dtype for variable in model.trainable_variables if variable.dtype != "float32"}
    if kinds:
        raise UnsupportedError(f"weights are float32, and {', '.join(f'{p} is {d}' for p, d in kinds.items())}")


def _is_seed(model: Any, variable: Any) -> bool:
    """Whether a variable is the state of a random generator, which Keras does not count among the weights."""
    return variable.dtype == "uint32" and not any(variable is weight for weight in model.weights)


def _names(model: Any) -> list[str]:
    """The paths of the trainable variables, each once, without the model's name, which counts models made before."""
    names: list[str] = []
    for variable in model.trainable_variables:
        path = variable.path.removeprefix(f"{model.name}/")
        names.append(path if path not in names else f"{path} {len(names)}")
    return names


def _fingerprint(model: Any, start: Any, fixed: Any) -> str:
    """SHA-256 over the layers and their settings, the code of layers of the user's own, and the weights."""
    keras = needed("keras", "keras")
    kinds = sorted({type(layer) for layer in model._flatten_layers()}, key=lambda kind: kind.__qualname__)
    try:
        made = json.dumps([keras.saving.serialize_keras_object(model.get_config()), [describe(kind) for kind in kinds]])
    except (NotImplementedError, TypeError, ValueError, PlanError) as error:
        raise UnsupportedError(
            f"{type(model).__name__} does not say what it is made of, so plans with it could not be told apart: give "
            "it a get_config, or build it from layers by keras.Sequential or the functional interface"
        ) from error
    sha = hashlib.sha256(made.encode())
    for array in (*start.values(), *(array for array in fixed if array is not None)):
        sha.update(f"{array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def _copied(model: Any) -> Any:
    keras = needed("keras", "keras")
    compiled, model.compiled = model.compiled, False
    try:
        copy = keras.models.clone_model(model)
    finally:
        model.compiled = compiled
    if not copy.built:
        copy.build_from_config(model.get_build_config())
    if compiled:
        # The loss is the same object: Keras' description leaves out Huber's delta, and functions cannot be read back.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            described = model.get_compile_config()
        config = keras.saving.deserialize_keras_object({**described, "loss": None})
        copy.compile(**{**config, "loss": model.loss})
        copy.optimizer.build(copy.trainable_variables)
    return copy


def _try(model: JaxModel) -> None:
    """Runs the model once where the shape of a row is known, so that what cannot be trained is refused here."""
    network: Any = model.network
    inputs = getattr(network.model, "inputs", None)
    if not inputs:
        return
    sides = inputs[0].shape[1:]
    row = jnp.zeros((1, *(side or _SIDE for side in sides)), jax.dtypes.canonicalize_dtype(inputs[0].dtype))
    key = jax.random.key(0)
    params = network.init(key)
    try:
        network.apply(params, row)  # not traced: Keras keeps the mask of a traced array where it cannot be seen
        jax.eval_shape(network.train, params, row, key)
    except (TypeError, ValueError):
        if None not in sides:
            raise


_SIDE = 32
"""A guess at sides that a model leaves open; where it is wrong the model is refused when it is used, if at all."""
