"""Recurrent language models: the character LSTM of the first FedAvg paper, and one over words.

Parameters have the names, shapes and order that `torch.nn.LSTM` gives them, so one vector serves both.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float

from shoal.errors import SettingError
from shoal.models.jax import JaxModel
from shoal.models.losses import next_symbol
from shoal.models.network import Params
from shoal.models.recurrence import lstm
from shoal.models.symbols import check_symbols
from shoal.settings import settle, whole
from shoal.vector import Array

Positions = Literal["every", "last"]


def char_lstm(
    vocabulary: int,
    *,
    embedding: int = 8,
    hidden: int = 256,
    layers: int = 2,
    positions: Positions = "every",
    padding: int | None = None,
) -> JaxModel:
    """The stacked character LSTM of McMahan et al. 2017, section 3: it says the next symbol of a text.

    `x` is (rows, length) symbols from 0 to vocabulary - 1; `y` the symbol after each, (rows, length), or only the
    one after the "last", (rows,). Labels equal to `padding` do not count. There are as many parameters as in
    `torch.nn.LSTM`, with two biases a gate. (The paper's 866,578 are those of 258 symbols with one bias a gate
    and peepholes, which torch does not have.)

    >>> char_lstm(90).layout.size
    822570
    """
    return JaxModel(LstmLanguage(vocabulary, embedding, hidden, layers, positions), next_symbol(padding))


def word_lstm(
    vocabulary: int,
    *,
    embedding: int = 96,
    hidden: int = 256,
    layers: int = 1,
    tied: bool = True,
    padding: int | None = 0,
) -> JaxModel:
    """An LSTM that says the next word at every place of a sentence, as in Hard et al. 2018 on a phone's keyboard.

    `x` and `y` are (rows, length) word numbers, `y` shifted by one; labels equal to `padding` do not count. If
    `tied`, the scores are a projection to the embedding's width times the embedding itself (Press and Wolf 2017),
    which saves a matrix as large as the embedding.

    >>> word_lstm(10_000).layout.size
    1357168
    """
    return JaxModel(LstmLanguage(vocabulary, embedding, hidden, layers, tied=tied), next_symbol(padding))


@dataclass(frozen=True)
class LstmLanguage:
    """Embedding, stacked LSTM, and a score for each symbol of the vocabulary."""

    vocabulary: int
    embedding: int
    hidden: int
    layers: int
    positions: Positions = "every"
    tied: bool = False

    def __post_init__(self) -> None:
        if self.positions not in ("every", "last"):
            raise SettingError(f"a text is predicted at 'every' position or after the 'last', not {self.positions!r}")
        settle(
            self,
            vocabulary=whole(self.vocabulary, "a vocabulary has at least 2 symbols", least=2),
            embedding=whole(self.embedding, "an embedding has at least one number", least=1),
            hidden=whole(self.hidden, "a layer has at least one unit", least=1),
            layers=whole(self.layers, "an LSTM has at least one layer", least=1),
        )

    def init(self, key: jax.Array) -> Params:
        """The start that torch gives: normal embeddings (a tied one of variance 1 / width), the rest uniform
        within 1 / sqrt(hidden).
        """
        shapes = self._shapes()
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        bound = 1 / math.sqrt(self.hidden)
        params = OrderedDict(
            (name, jax.random.uniform(keys[name], shape, minval=-bound, maxval=bound)) for name, shape in shapes.items()
        )
        scale = 1 / math.sqrt(self.embedding) if self.tied else 1.0
        params["embedding.weight"] = scale * jax.random.normal(keys["embedding.weight"], shapes["embedding.weight"])
        return params

    def _shapes(self) -> OrderedDict[str, tuple[int, ...]]:
        shapes: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        shapes["embedding.weight"] = (self.vocabulary, self.embedding)
        for layer in range(self.layers):
            inputs = self.hidden if layer else self.embedding
            shapes[f"lstm.weight_ih_l{layer}"] = (4 * self.hidden, inputs)
            shapes[f"lstm.weight_hh_l{layer}"] = (4 * self.hidden, self.hidden)
            shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * self.hidden,)
        if self.tied:
            shapes["projection.weight"], shapes["projection.bias"] = (self.embedding, self.hidden), (self.embedding,)
        else:
            shapes["output.weight"] = (self.vocabulary, self.hidden)
        shapes["output.bias"] = (self.vocabulary,)
        return shapes

    def apply(self, params: Params, x: Array) -> Float[Array, "rows ... vocabulary"]:
        """Scores for the next symbol at every position, or after the last."""
        states = params["embedding.weight"][x.T]
        for layer in range(self.layers):
            weights = (params[f"lstm.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            states = lstm(states, *weights)
        states = states[-1] if self.positions == "last" else states.swapaxes(0, 1)
        if self.tied:
            states = states @ params["projection.weight"].T + params["projection.bias"]
        table = params["embedding.weight" if self.tied else "output.weight"]
        return states @ table.T + params["output.bias"]

    def train(self, params: Params, x: Array, key: jax.Array) -> Float[Array, "rows ... vocabulary"]:
        """As in evaluation."""
        return self.apply(params, x)

    def check(self, x: np.ndarray[Any, Any]) -> None:
        """DataError if a symbol is outside the vocabulary."""
        check_symbols(x, self.vocabulary)
