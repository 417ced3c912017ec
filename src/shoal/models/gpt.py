"""A small decoder-only transformer in the manner of GPT-2.

Parameters have torch's names, shapes and order (a dense layer is (outputs, inputs)), so one vector serves both.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from shoal.errors import SettingError
from shoal.models.jax import JaxModel
from shoal.models.losses import next_symbol
from shoal.models.network import Params
from shoal.models.symbols import check_symbols
from shoal.settings import number, settle, whole
from shoal.vector import Array

Flow = Float[Array, "rows length width"]


def gpt(
    vocabulary: int,
    *,
    length: int,
    width: int = 128,
    heads: int = 4,
    layers: int = 4,
    dropout: float = 0.0,
    padding: int | None = None,
) -> JaxModel:
    """A transformer that says the next symbol at every position of a text of at most `length` symbols.

    Pre-norm blocks, learned positions, GELU in its tanh form, the embedding as output (Radford et al. 2019).
    `x` and `y` are (rows, up to length) symbols, `y` shifted by one; labels equal to `padding` do not count.
    `dropout` is on the embeddings and on what each block adds, in training only.

    >>> gpt(90, length=80).layout.size
    815104
    """
    return JaxModel(Gpt(vocabulary, length, width, heads, layers, dropout), next_symbol(padding))


@dataclass(frozen=True)
class Gpt:
    """Embeddings of symbols and places, blocks of attention and of two dense layers, a score a symbol."""

    vocabulary: int
    length: int
    width: int
    heads: int
    layers: int
    dropout: float

    def __post_init__(self) -> None:
        settle(
            self,
            vocabulary=whole(self.vocabulary, "a vocabulary has at least 2 symbols", least=2),
            length=whole(self.length, "a text has at least one symbol", least=1),
            width=whole(self.width, "an embedding has at least one number", least=1),
            heads=whole(self.heads, "attention has at least one head", least=1),
            layers=whole(self.layers, "a transformer has at least one layer", least=1),
            dropout=number(self.dropout, "dropout is a chance from 0 to below 1", lambda v: 0 <= v < 1),
        )
        if self.width % self.heads:
            raise SettingError(
                f"the width is a multiple of the number of heads, which share it out, and {self.width} is not "
                f"divisible by {self.heads}"
            )

    def init(self, key: jax.Array) -> Params:
        """Radford et al. 2019: normal weights of deviation 0.02, over sqrt(2 layers) where a block adds to the
        flow; biases 0, norms 1.
        """
        shapes = self._shapes()
        ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
        drawn = jnp.split(jax.random.normal(key, (int(ends[-1]),)), ends[:-1])  # one draw: each shape is a compilation
        return OrderedDict(
            (name, self._start(name, one.reshape(shape)))
            for (name, shape), one in zip(shapes.items(), drawn, strict=True)
        )

    def _start(self, name: str, normal: Array) -> Array:
        if name.endswith("bias"):
            return jnp.zeros_like(normal)
        if "norm" in name:
            return jnp.ones_like(normal)
        adds = name.endswith(("mix.weight", "contract.weight"))
        return 0.02 / math.sqrt(2 * self.layers if adds else 1) * normal

    def _shapes(self) -> OrderedDict[str, tuple[int, ...]]:
        shapes: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        shapes["symbols.weight"], shapes["places.weight"] = (self.vocabulary, self.width), (self.length, self.width)

        def layer(name: str, *shape: int) -> None:
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

        for block in range(self.layers):
            layer(f"blocks.{block}.norm_1", self.width)
            layer(f"blocks.{block}.attention", 3 * self.width, self.width)
            layer(f"blocks.{block}.mix", self.width, self.width)
            layer(f"blocks.{block}.norm_2", self.width)
            layer(f"blocks.{block}.expand", 4 * self.width, self.width)
            layer(f"blocks.{block}.contract", self.width, 4 * self.width)
        layer("norm", self.width)
        return shapes

    def apply(self, params: Params, x: Array) -> Float[Array, "rows length vocabulary"]:
        """Scores for the next symbol at every position."""
        return self._scores(params, x, None)

    def train(self, params: Params, x: Array, key: jax.Array) -> Float[Array, "rows length vocabulary"]:
        """The scores, with dropout."""
        return self._scores(params, x, key if self.dropout else None)

    def _scores(self, params: Params, x: Array, key: jax.Array | None) -> Array:
        keys = iter([None] * (2 * self.layers + 1) if key is None else jax.random.split(key, 2 * self.layers + 1))
        flow = params["symbols.weight"][x] + params["places.weight"][: x.shape[1]]
        flow = self._dropped(flow, next(keys))
        for block in range(self.layers):
            own = _Layers(params, f"blocks.{block}.")
            flow = flow + self._dropped(self._attention(own, own.norm("norm_1", flow)), next(keys))
            inner = jax.nn.gelu(own.dense("expand", own.norm("norm_2", flow)), approximate=True)
            flow = flow + self._dropped(own.dense("contract", inner), next(keys))
        return _Layers(params, "").norm("norm", flow) @ params["symbols.weight"].T

    def _attention(self, own: _Layers, flow: Flow) -> Flow:
        """Each place looks at itself and those before it."""
        rows, length, _ = flow.shape
        split = own.dense("attention", flow).reshape(rows, length, 3, self.heads, self.width // self.heads)
        query, key, value = (split[:, :, part].swapaxes(1, 2) for part in range(3))
        scores = query @ key.swapaxes(2, 3) / math.sqrt(self.width // self.heads)
        past = jnp.tril(jnp.ones((length, length), bool))
        seen = jax.nn.softmax(jnp.where(past, scores, -jnp.inf), axis=-1) @ value
        return own.dense("mix", seen.swapaxes(1, 2).reshape(flow.shape))

    def _dropped(self, flow: Flow, key: jax.Array | None) -> Flow:
        if key is None:
            return flow
        kept = jax.random.bernoulli(key, 1 - self.dropout, flow.shape)
        return jnp.where(kept, flow / (1 - self.dropout), 0.0)

    def check(self, x: np.ndarray[Any, Any]) -> None:
        """DataError if a symbol is outside the vocabulary, or a text longer than `length`."""
        check_symbols(x, self.vocabulary, most=self.length)


@dataclass(frozen=True)
class _Layers:
    """The layers whose names begin alike."""

    params: Params
    prefix: str

    def dense(self, name: str, flow: Array) -> Array:
        """flow @ weight.T + bias."""
        return flow @ self.params[f"{self.prefix}{name}.weight"].T + self.params[f"{self.prefix}{name}.bias"]

    def norm(self, name: str, flow: Array) -> Array:
        """Layer normalisation (Ba et al. 2016) over the last axis."""
        centred = flow - jnp.mean(flow, axis=-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-5)
        return scaled * self.params[f"{self.prefix}{name}.weight"] + self.params[f"{self.prefix}{name}.bias"]
