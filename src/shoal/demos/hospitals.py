"""Four hospitals train a model of heart disease together, and no patient's row leaves its hospital.

Everything here is public Shoal: copy the file and change it. `shoal demo hospitals` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import shoal

MODEL = shoal.models.logistic(features=13)
WORK = shoal.FedAvg(MODEL, steps=5, batch_size="all", client_optimizer=shoal.sgd(0.1))
TUNE_ROUNDS = 10
"""Rounds of training alone that follow the federated ones in fine-tuning."""


@dataclass(frozen=True)
class Line:
    """One way to train, and how good its models are: means over seeds, with their standard deviations.

    `accuracy` and `auc` have an entry for "all" patients in the test and one for each hospital's.
    """

    way: str
    accuracy: dict[str, tuple[float, float]]
    auc: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Study:
    """The demo's two tables."""

    seeds: int
    rounds: int
    lines: tuple[Line, ...]
    held_out: tuple[Line, ...]

    def accuracy(self, way: str) -> float:
        """The mean accuracy of a way over all patients."""
        return next(line.accuracy["all"][0] for line in self.lines if line.way == way)


Scores = dict[str, tuple[Any, Any]]
"""For each hospital the model's scores and the truth."""


def train(population: shoal.Population, rounds: int, seed: int, start: Any = None) -> shoal.Result:
    """Every hospital in every round."""
    return shoal.simulate(shoal.Plan(WORK, rounds=rounds), population, seed=seed, start=start, progress="off")


def scores(model: shoal.Result, test: shoal.Population) -> Scores:
    """What a model says of every hospital's patients."""
    return {name: (model.outputs(test[name].rows("x")), test[name].rows("y")) for name in test}


def compare(seed: int, rounds: int) -> dict[str, Scores]:
    """Every way to train, on one random split: two thirds of each hospital's patients to learn from."""
    train_set, test_set = shoal.hospitals().split_examples(0.34, seed=seed)
    ways: dict[str, Scores] = {}

    # Each hospital for itself: its own patients, its own standardisation, which its model takes along.
    at_home: Scores = {}
    for name in train_set:
        own = shoal.standardizer(train_set.select([name]))
        model = train(own.apply(train_set.select([name])), rounds, seed)
        ways[f"{name} alone"] = scores(model, own.apply(test_set))
        at_home[name] = ways[f"{name} alone"][name]
    ways["each its own"] = at_home

    # Federated, but each hospital standardises by its own patients: a feature means four different things.
    own = shoal.own_standardizer(train_set)
    model = train(own.apply(train_set), rounds, seed)
    ways["federated"] = scores(model, own.apply(test_set))

    # One round of federated mean and variance first.
    shared = shoal.standardizer(train_set)
    train_shared, test_shared = shared.apply(train_set), shared.apply(test_set)
    federated = train(train_shared, rounds, seed)
    ways["federated, standardised"] = scores(federated, test_shared)

    # Each hospital goes on alone from the federated model.
    tuned: Scores = {}
    for name in train_set:
        model = train(train_shared.select([name]), TUNE_ROUNDS, seed, start=federated.vector)
        tuned[name] = scores(model, test_shared)[name]
    ways["standardised, fine-tuned"] = tuned

    # What none of them may do: all rows in one place.
    ways["pooled"] = scores(train(train_shared.pooled(), rounds, seed), test_shared)
    return ways


def hold_out(seed: int, rounds: int) -> dict[str, dict[str, Scores]]:
    """For each hospital: models that never saw it, judged on all its patients."""
    everyone, _ = shoal.hospitals().split_examples(0.34, seed=seed)
    found: dict[str, dict[str, Scores]] = {}
    for name in everyone:
        others, stranger = everyone.without(name), shoal.hospitals().select([name])
        shared = shoal.standardizer(others)
        ways = {
            "the three others, federated": scores(train(shared.apply(others), rounds, seed), shared.apply(stranger))
        }
        for other in others:
            own = shoal.standardizer(everyone.select([other]))
            model = train(own.apply(everyone.select([other])), rounds, seed)
            ways[f"{other} alone"] = scores(model, own.apply(stranger))
        found[name] = ways
    return found


def study(seeds: int = 20, rounds: int = 50, tell: Callable[[], None] = lambda: None) -> Study:
    """Both tables, over that many random splits; `tell` is called after each."""
    compared: list[dict[str, Scores]] = []
    strangers: list[dict[str, dict[str, Scores]]] = []
    for seed in range(seeds):
        compared.append(compare(seed, rounds))
        strangers.append(hold_out(seed, rounds))
        tell()
    lines = tuple(summary(way, [ways[way] for ways in compared]) for way in compared[0])
    held_out = tuple(
        summary(f"{name}: {way}", [by_name[name][way] for by_name in strangers])
        for name in strangers[0]
        for way in strangers[0][name]
    )
    return Study(seeds, rounds, lines, held_out)


def summary(way: str, runs: list[Scores]) -> Line:
    """Means and standard deviations over the seeds."""
    parts = list(runs[0])
    if len(parts) > 1:
        parts = ["all", *parts]
    return Line(
        way,
        {part: spread([accuracy(*pick(run, part)) for run in runs]) for part in parts},
        {part: spread([shoal.models.auc(*pick(run, part)) for run in runs]) for part in parts},
    )


def pick(run: Scores, part: str) -> tuple[Any, Any]:
    """Scores and truth of one hospital, or of all together."""
    if part != "all":
        return run[part]
    return np.concatenate([s for s, _ in run.values()]), np.concatenate([y for _, y in run.values()])


def accuracy(outputs: Any, labels: Any) -> float:
    """The share of patients on the right side of zero."""
    return float(np.mean((outputs.ravel() > 0) == (labels > 0)))


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and standard deviation, of the values that are numbers."""
    numbers = np.array([value for value in values if value == value])
    return (float(numbers.mean()), float(numbers.std())) if len(numbers) else (float("nan"), float("nan"))


if __name__ == "__main__":
    for line in study(seeds=3).lines:
        print(f"{line.way:<40} {line.accuracy['all'][0]:.3f} accuracy, {line.auc['all'][0]:.3f} AUC")
