"""Handwritten digits dealt to clients in three ways, and what each way costs beside all rows in one place.

Everything here is public Shoal: copy the file and change it. `shoal demo images` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

import shoal

LAST = 5
"""The final accuracy is the mean over so many last rounds: with skewed labels it jumps from round to round."""


@dataclass(frozen=True)
class Setting:
    """What is trained, by how many clients of which how many take part in a round, and the accuracies to reach."""

    hidden: tuple[int, ...]
    learning_rate: float
    clients: int
    cohort: int
    rounds: int
    targets: tuple[float, float]
    batch: int = 10


MNIST = Setting(hidden=(200, 200), learning_rate=0.1, clients=100, cohort=10, rounds=60, targets=(0.90, 0.95))
"""The 2NN of McMahan et al. 2017 as they train it: a tenth of 100 clients a round, one pass in batches of 10."""
DIGITS = Setting(hidden=(64,), learning_rate=0.3, clients=50, cohort=10, rounds=100, targets=(0.85, 0.90))


@dataclass(frozen=True, eq=False)
class Line:
    """One way to deal the rows: how many of each label every client holds, and test accuracy after each round."""

    way: str
    held: np.ndarray[Any, Any]
    accuracy: tuple[float, ...]

    @property
    def labels(self) -> float:
        """How many labels a client holds, the median."""
        return float(np.median((self.held > 0).sum(axis=1)))

    @property
    def final(self) -> float:
        """The mean accuracy of the last rounds."""
        return fmean(self.accuracy[-LAST:])

    def rounds_to(self, target: float) -> int | None:
        """The first round with that accuracy, or None."""
        return next((place for place, found in enumerate(self.accuracy, 1) if found >= target), None)


@dataclass(frozen=True, eq=False)
class Study:
    """The demo's table: the ways to deal the rows, the last of them to leave all in one place."""

    data: str
    examples: tuple[int, int]
    setting: Setting
    lines: tuple[Line, ...]

    @property
    def pooled(self) -> Line:
        """All rows in one place."""
        return self.lines[-1]


def deal(train: shoal.Population, setting: Setting, seed: int) -> dict[str, Callable[[], shoal.Population]]:
    """The ways to deal the rows, each a function: MNIST dealt three times over would fill the memory."""
    clients = setting.clients
    return {
        "IID": lambda: shoal.partition.iid(train, clients=clients, seed=seed),
        "two-label shards": lambda: shoal.partition.shards(train, clients=clients, per_client=2, seed=seed),
        "Dirichlet(0.5)": lambda: shoal.partition.dirichlet(train, clients=clients, alpha=0.5, seed=seed),
        "pooled": train.pooled,
    }


def plan(population: shoal.Population, test: shoal.Population, setting: Setting) -> shoal.Plan:
    """Federated averaging; if there is one client only, gradient descent with as many steps a round."""
    features = int(np.prod(test.columns["x"].shape[1:]))
    classes = 1 + int(max(part.columns["y"].max() for part in (population, test)))
    model = shoal.models.mlp(features, hidden=setting.hidden, classes=classes)
    rate = shoal.sgd(setting.learning_rate)
    if len(population) > 1:
        work = shoal.FedAvg(model, batch_size=setting.batch, client_optimizer=rate)
        return shoal.Plan(work, rounds=setting.rounds, cohort=setting.cohort)
    seen = int(population.offsets[-1]) * setting.cohort / setting.clients
    work = shoal.FedAvg(model, steps=max(1, round(seen / setting.batch)), batch_size=setting.batch,
                        client_optimizer=rate)  # fmt: skip
    return shoal.Plan(work, rounds=setting.rounds)


def study(
    train: shoal.Population,
    test: shoal.Population,
    *,
    data: str,
    setting: Setting,
    seed: int = 0,
    tell: Callable[[], None] = lambda: None,
) -> Study:
    """The test's accuracy after every round, for each way to deal the rows of `train`; `tell` is called each round."""

    def trained(way: str, population: shoal.Population) -> Line:
        result = shoal.simulate(
            plan(population, test, setting), population, test=test, every=1, seed=seed, progress="off",
            callbacks=[lambda rows, run: tell()],
        )  # fmt: skip
        return Line(way, held(population), tuple(result.history.column("test accuracy")))

    lines = tuple(trained(way, dealt()) for way, dealt in deal(train, setting, seed).items())
    return Study(data, (int(train.offsets[-1]), int(test.offsets[-1])), setting, lines)


def held(population: shoal.Population) -> np.ndarray[Any, Any]:
    """How many rows of each label every client holds: a row for each client."""
    labels = int(population.columns["y"].max()) + 1
    return np.stack([np.bincount(population[name].rows("y"), minlength=labels) for name in population])


if __name__ == "__main__":
    for line in study(*shoal.digits(), data="digits", setting=DIGITS).lines:
        print(f"{line.way:<20} {line.final:.3f} accuracy, {line.rounds_to(0.9)} rounds to 90 %")
