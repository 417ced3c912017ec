"""A small zoo: linear and logistic models, a multilayer perceptron, the CNN of the first FedAvg paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from shoal.errors import SettingError
from shoal.models.jax import JaxModel
from shoal.models.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError
from shoal.models.network import Params
from shoal.settings import whole
from shoal.vector import Array


def linear(features: int, *, outputs: int = 1) -> JaxModel:
    """Linear regression by squared error; starts at zero.

    >>> linear(3).layout.size
    4
    """
    outputs = whole(outputs, "a model has at least one output", least=1)
    return JaxModel(Linear(_features(features), outputs), SquaredError())


def logistic(features: int, *, classes: int = 2) -> JaxModel:
    """Logistic regression: one log-odds for two classes, softmax for more; starts at zero.

    >>> logistic(3).layout.size, logistic(3, classes=10).layout.size
    (4, 40)
    """
    return JaxModel(Linear(_features(features), _scores(classes)), _classification(classes))


def mlp(features: int, *, hidden: Sequence[int] = (200, 200), classes: int = 2) -> JaxModel:
    """A multilayer perceptron with ReLU. (200, 200) is the "2NN" of McMahan et al. 2017.

    >>> mlp(784, classes=10).layout.size
    199210
    """
    if not isinstance(hidden, Sequence):
        raise SettingError(f"hidden is the width of each hidden layer, such as (200, 200), not {hidden!r}")
    widths = [whole(width, "a layer has at least one unit", least=1) for width in (features, *hidden)]
    return JaxModel(Perceptron((*widths, _scores(classes))), _classification(classes))


def cnn(shape: Sequence[int] = (28, 28, 1), *, classes: int = 10) -> JaxModel:
    """The CNN of McMahan et al. 2017, section 3: two 5 x 5 convolutions (32 and 64 channels) with ReLU and
    2 x 2 pooling, 512 hidden units, softmax. `shape` is height, width, channels; sides are multiples of 4.

    >>> cnn().layout.size
    1663370
    """
    return JaxModel(McMahanCnn(tuple(shape), _scores(classes)), _classification(classes))


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias, from zero."""

    features: int
    outputs: int

    def init(self, key: jax.Array) -> Params:
        """Zeros."""
        return {"weight": jnp.zeros((self.features, self.outputs)), "bias": jnp.zeros(self.outputs)}

    def apply(self, params: Params, x: Array) -> Array:
        """The outputs."""
        return x.reshape(x.shape[0], -1) @ params["weight"] + params["bias"]

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """The outputs."""
        return self.apply(params, x)


@dataclass(frozen=True)
class Perceptron:
    """Dense layers with ReLU between them."""

    widths: tuple[int, ...]

    def init(self, key: jax.Array) -> Params:
        """Glorot weights, zero biases."""
        sizes = zip(self.widths, self.widths[1:], strict=False)
        keys = jax.random.split(key, len(self.widths) - 1)
        return [_dense(k, *size) for k, size in zip(keys, sizes, strict=True)]

    def apply(self, params: Params, x: Array) -> Array:
        """The outputs."""
        x = x.reshape(x.shape[0], -1)
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["weight"] + layer["bias"])
        return x @ params[-1]["weight"] + params[-1]["bias"]

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """The outputs."""
        return self.apply(params, x)


@dataclass(frozen=True)
class McMahanCnn:
    """Two convolutions with pooling, one hidden layer."""

    shape: tuple[int, ...]
    outputs: int

    def __post_init__(self) -> None:
        if len(self.shape) != 3:
            raise SettingError(f"an image has height, width and channels, not {self.shape}")
        if self.shape[0] % 4 or self.shape[1] % 4:
            raise SettingError(f"height and width are multiples of 4, because they are halved twice, not {self.shape}")

    def init(self, key: jax.Array) -> Params:
        """Glorot weights, zero biases."""
        height, width, channels = self.shape
        keys = jax.random.split(key, 4)
        return {
            "convolution 1": _kernel(keys[0], 5, channels, 32),
            "convolution 2": _kernel(keys[1], 5, 32, 64),
            "hidden": _dense(keys[2], height // 4 * (width // 4) * 64, 512),
            "output": _dense(keys[3], 512, self.outputs),
        }

    def apply(self, params: Params, x: Array) -> Array:
        """The outputs."""
        x = _pool(jax.nn.relu(_convolve(x, params["convolution 1"])))
        x = _pool(jax.nn.relu(_convolve(x, params["convolution 2"])))
        x = x.reshape(x.shape[0], -1)
        x = jax.nn.relu(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
        return x @ params["output"]["weight"] + params["output"]["bias"]

    def train(self, params: Params, x: Array, key: jax.Array) -> Array:
        """The outputs."""
        return self.apply(params, x)


def _scores(classes: int) -> int:
    classes = whole(classes, "a classifier has at least 2 classes", least=2)
    return 1 if classes == 2 else classes


def _features(features: int) -> int:
    return whole(features, "a model has at least one feature", least=1)


def _classification(classes: int) -> Loss:
    return BinaryCrossEntropy() if classes == 2 else CrossEntropy()


def _dense(key: jax.Array, inputs: int, outputs: int) -> dict[str, Any]:
    weight = jax.nn.initializers.glorot_uniform()(key, (inputs, outputs))
    return {"weight": weight, "bias": jnp.zeros(outputs)}


def _kernel(key: jax.Array, side: int, inputs: int, outputs: int) -> dict[str, Any]:
    weight = jax.nn.initializers.glorot_uniform()(key, (side, side, inputs, outputs))
    return {"weight": weight, "bias": jnp.zeros(outputs)}


def _convolve(x: Array, layer: dict[str, Any]) -> Array:
    out = jax.lax.conv_general_dilated(x, layer["weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return out + layer["bias"]


def _pool(x: Array) -> Array:
    """The largest of every 2 x 2; as a reshape, which XLA runs faster than its pooling."""
    rows, height, width, channels = x.shape
    return x.reshape(rows, height // 2, 2, width // 2, 2, channels).max((2, 4))
