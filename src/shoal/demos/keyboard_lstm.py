"""The keyboard's LSTM: how it is trained by federated averaging, and how its guesses are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

import shoal
from shoal.programs import compiled

WORDS = 2
"""The first symbol that is a word: those before are a sentence's start and an unknown word."""
ROWS = 64
"""Rows that are judged at once; a row of 32 words has a third of a million scores."""

Model = shoal.models.JaxModel
Vector = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Training:
    """How the LSTM is trained: so many roles a round, each a pass over its own rows of `length` words in batches."""

    rounds: int
    cohort: int = 4
    length: int = 32
    batch: int = 8
    client_rate: float = 1.0
    server_rate: float = 0.01

    def plan(self, model: Model) -> shoal.Plan:
        """Federated averaging with Adam on the server (Reddi et al. 2021), whose rate falls to 0 over the rounds."""
        work = shoal.FedAvg(
            model,
            batch_size=self.batch,
            client_optimizer=shoal.sgd(self.client_rate),
            server_optimizer=shoal.adam(shoal.schedules.cosine(self.server_rate, rounds=self.rounds)),
        )
        return shoal.Plan(work, rounds=self.rounds, cohort=self.cohort)


SHORT = Training(rounds=250)
FULL = Training(rounds=1400)
"""Between five and six passes over all that the roles say."""
PASSES = 4
"""Of the reference: with more it goes on rising, as the federated model does with more rounds."""


def train(
    texts: shoal.Texts,
    vocabulary: shoal.Vocabulary,
    training: Training,
    counts: np.ndarray[Any, Any],
    *,
    tell: Callable[[], None] = lambda: None,
) -> tuple[Model, Vector]:
    """The model with its weights after training; `tell` is called after each round."""
    model = shoal.models.word_lstm(len(vocabulary))
    result = shoal.simulate(
        training.plan(model), texts.rows(vocabulary, length=training.length), start=start(model, counts), every=1,
        progress="off", callbacks=[lambda rows, run: tell()],
    )  # fmt: skip
    return model, result.vector


def train_pooled(
    texts: shoal.Texts, vocabulary: shoal.Vocabulary, training: Training, counts: np.ndarray[Any, Any]
) -> tuple[Model, Vector]:
    """The same model trained on all rows in one place, by Adam, in `PASSES` passes over them: the reference."""
    model, rows = shoal.models.word_lstm(len(vocabulary)), texts.rows(vocabulary, length=training.length)
    work = shoal.FedAvg(model, epochs=PASSES, batch_size=32, client_optimizer=shoal.adam(0.002))
    result = shoal.simulate(
        shoal.Plan(work, rounds=1), rows.pooled(), start=start(model, counts), progress="off"
    )  # fmt: skip
    return model, result.vector


def start(model: Model, counts: np.ndarray[Any, Any]) -> Vector:
    """The model's fresh weights, with the words' frequencies, which all clients have counted, as its first guess."""
    params = model.layout.unflatten(np.asarray(model.init(shoal.Key.from_seed(0).split("model"))))
    frequencies = (counts + 1) / (counts + 1).sum()
    return model.layout.flatten({**params, "output.bias": np.log(frequencies).astype(np.float32)})


def recalls(model: Model, vector: Vector, population: shoal.Population) -> tuple[float, float]:
    """How often the next word is the likeliest, and among the three likeliest; unknown words count as missed."""
    x, y = population.columns["x"], population.columns["y"]
    missing = -len(x) % ROWS
    x, y = (np.concatenate([column, np.zeros((missing, column.shape[1]), column.dtype)]) for column in (x, y))
    weights = jnp.asarray(vector)
    better = [np.asarray(_better(model, weights, x[i : i + ROWS], y[i : i + ROWS])) for i in range(0, len(x), ROWS)]
    places = np.concatenate(better)[y > 0]
    return float(np.mean(places < 1)), float(np.mean(places < 3))


@compiled()
def _better(model: Model, vector: Any, x: Any, y: Any) -> Any:
    """How many words score higher than the right one; as many as there are for what is no word."""
    scores = model.network.apply(model.params(vector), x)
    right = jnp.take_along_axis(scores, y[..., None], axis=-1)
    count = jnp.sum(scores[..., WORDS:] > right, axis=-1)
    return jnp.where(y >= WORDS, count, scores.shape[-1])


def suggest(model: Model, vector: Vector, words: Sequence[int], *, top: int = 3) -> list[int]:
    """The likeliest words after the words of a sentence so far."""
    # One length for every sentence, so that one program serves all: what comes after a word does not change it.
    x = np.zeros((1, 32), np.int32)
    given = list(words)[-31:]
    x[0, 1 : len(given) + 1] = given
    scores = model.outputs(vector, x)[0, len(given), WORDS:]
    return [int(place) + WORDS for place in np.argsort(-scores)[:top]]
