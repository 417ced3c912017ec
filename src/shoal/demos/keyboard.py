"""A keyboard's next word, learned from what every role of Shakespeare's plays says, by counting and by an LSTM.

Everything here is public Shoal: copy the file and change it. `shoal demo keyboard` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import shoal
from shoal.demos.keyboard_lstm import Training, recalls, train

LEAST_WORDS = 50
HELD_OUT = 0.2
SUGGESTIONS = 3


@dataclass(frozen=True)
class Line:
    """One way to guess the next word: how often the word was its first suggestion, and among its three.

    `leaves` says what leaves one client.
    """

    way: str
    recall: tuple[float, float]
    leaves: str = "nothing"


@dataclass(frozen=True, eq=False)
class Data:
    """Each role's first sentences to learn from, its last to test, and the words that are known."""

    train: shoal.Texts
    test: shoal.Texts
    vocabulary: shoal.Vocabulary

    @staticmethod
    def of(texts: shoal.Texts, *, words: int) -> Data:
        """Roles with enough words, each split in time; the words that the first parts use most."""
        train, test = texts.at_least(LEAST_WORDS).split(HELD_OUT)
        return Data(train, test, train.vocabulary(words))


@dataclass(frozen=True, eq=False)
class Study:
    """The demo's table, and the models to try."""

    data: Data
    lines: tuple[Line, ...]
    equal: tuple[int, ...]
    """How many federated counts there are of each length, each equal to the pooled one."""
    counted: shoal.analytics.NgramModel
    network: tuple[shoal.models.JaxModel, Any] | None
    rounds: int


def study(data: Data, training: Training, *, tell: Callable[[str], None] = lambda step: None) -> Study:
    """Counts, then trains; `tell` is called as each step begins and after each round.

    Without rounds of training there is no LSTM.
    """
    tell("counting")
    learned, tested = data.train.contexts(data.vocabulary), data.test.contexts(data.vocabulary)
    x, y = tested.columns["x"], tested.columns["y"]
    size = len(data.vocabulary)
    everything, shared = (count(learned, vocabulary=size, least_clients=least) for least in (1, 2))
    check_equal(everything, learned)

    def line(way: str, model: shoal.analytics.NgramModel, order: int) -> Line:
        found = model.suggest(x, order=order, top=SUGGESTIONS)
        sent = sum(model.table.ngrams[:order])
        return Line(way, both(found, y), f"{sent:,} counts")

    lines = [
        line("most frequent words", everything, 1),
        Line("bigrams, each role its own", both(own_bigrams(learned, tested, vocabulary=size), y)),
        line("bigrams, federated", everything, 2),
        line("trigrams, federated", everything, 3),
        line("trigrams of two roles or more", shared, 3),
    ]
    network = None
    if training.rounds:
        tell("training")
        network = train(data.train, data.vocabulary, training, shared.counts[0], tell=lambda: tell("round"))
        tell("testing")
        found = recalls(*network, data.test.rows(data.vocabulary, length=training.length))
        lines.append(Line("LSTM, FedAvg", found, f"{network[0].layout.size:,} weights a round"))
    return Study(data, tuple(lines), everything.table.ngrams, shared, network, training.rounds)


def count(population: shoal.Population, *, vocabulary: int, least_clients: int) -> shoal.analytics.NgramModel:
    """One federated round: runs of one, two and three words that so many clients hold, counted by all of them."""
    clients = (population[name] for name in population)
    table = shoal.analytics.NgramTable.held_by(clients, vocabulary=vocabulary, least_clients=least_clients)
    plan = shoal.Plan(shoal.analytics.NgramCounts(table), rounds=1)
    return shoal.analytics.NgramModel(table, shoal.simulate(plan, population, progress="off").state.counts)


def check_equal(model: shoal.analytics.NgramModel, population: shoal.Population) -> None:
    """Counts the runs of all rows in one place; AssertionError unless they are the same, each as often."""
    rows = np.column_stack([population.columns["x"], population.columns["y"]]).astype(np.int64)
    for length, (keys, federated) in enumerate(zip(model.table.keys, model.counts, strict=True), 1):
        runs, pooled = np.unique(rows[:, -length:], axis=0, return_counts=True)
        codes = runs @ model.table.vocabulary ** np.arange(length)[::-1]
        np.testing.assert_array_equal(keys[federated > 0], codes)
        np.testing.assert_array_equal(federated[federated > 0], pooled)


def own_bigrams(learned: shoal.Population, tested: shoal.Population, *, vocabulary: int) -> np.ndarray[Any, Any]:
    """What each role's own counts suggest for its own test, in the rows' order."""
    found: list[Any] = []
    for name in tested:
        table = shoal.analytics.NgramTable.held_by([learned[name]], vocabulary=vocabulary, order=2, least_clients=1)
        model = shoal.analytics.NgramModel(table, table.counts(learned[name]))
        found.append(model.suggest(tested[name].rows("x"), top=SUGGESTIONS))
    return np.concatenate(found)


def both(suggested: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Recall of the first suggestion, and of all."""
    return shoal.models.recall(suggested[:, :1], labels), shoal.models.recall(suggested, labels)


if __name__ == "__main__":
    for line in study(Data.of(shoal.shakespeare(), words=10_000), Training(rounds=0)).lines:
        print(f"{line.way:<32} {line.recall[0]:.3f} {line.recall[1]:.3f}")
