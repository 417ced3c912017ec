"""The hospitals' model with an epsilon for each hospital as a whole, and what that costs.

Everything here is public Shoal: copy the file and change it. `shoal demo hospitals --simulate --epsilon 4` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

import shoal
from shoal.data.hospitals import FEATURES, HOSPITALS
from shoal.demos.hospitals import WORK, Scores, Study, scores, summary
from shoal.demos.hospitals_deployed import RUNS, THRESHOLD, Ask, Terms, schema

DELTA = 1e-6
ROUNDS, NORM = 5, 0.1
"""Few rounds, since each takes its share of epsilon; a norm that every hospital reaches, so that all count alike."""
MEANT = {
    "age": (55, 10), "resting blood pressure": (130, 20), "cholesterol": (200, 100), "maximum heart rate": (140, 25),
    "ST depression": (1, 1),
}  # fmt: skip
"""Roughly the mean and the deviation that a physician would name. Measured ones would take their share of epsilon."""
SCALE = shoal.Standardizer(*np.array([MEANT.get(name, (0.5, 0.5)) for name in FEATURES], float).T)

_WORK = replace(WORK, client_optimizer=shoal.sgd(0.3))


@dataclass(frozen=True)
class Private:
    """The study's lines, from measured standardisation without noise to epsilon; and what was spent."""

    study: Study
    spent: shoal.privacy.Spent


def training(epsilon: float, rounds: int = ROUNDS, *, threshold: int | None = None) -> shoal.Plan:
    """Federated averaging with the least noise that spends epsilon; with a threshold by secure sums."""
    noised = shoal.private_mean(
        epsilon=epsilon, delta=DELTA, norm=NORM, rounds=rounds, clients=len(HOSPITALS), threshold=threshold
    )
    return shoal.Plan(replace(_WORK, aggregation=noised), rounds=rounds)


def without_noise(plan: shoal.Plan) -> shoal.Plan:
    """The same plan, clipped but without noise: beside it stands what noise costs."""
    clipped = shoal.Clip(NORM) >> shoal.PlainSum() >> shoal.Mean()
    return replace(plan, algorithm=replace(_WORK, aggregation=clipped))


def learn(ask: Ask, terms: Terms) -> list[float]:
    """The model of a run somewhere: nothing is asked before it, and nothing measured after it."""
    state, _ = ask(RUNS[1], deployed(terms))
    return np.asarray(state.vector).tolist()


def deployed(terms: Terms) -> shoal.Plan:
    """The plan for hospitals at a distance, with what it takes of their tables."""
    assert terms.epsilon is not None
    plan = training(terms.epsilon, terms.rounds, threshold=THRESHOLD if terms.secure else None)
    return replace(plan, data=schema(SCALE, "train"))


def compare(epsilon: float, rounds: int, seed: int) -> dict[str, Scores]:
    """Every way to train, on one random split: two thirds of each hospital's patients to learn from."""
    train, test = shoal.hospitals().split_examples(0.34, seed=seed)
    private = training(epsilon, rounds)
    plain = shoal.Plan(WORK, rounds=50)

    def learned(plan: shoal.Plan, scale: shoal.Standardizer) -> Scores:
        model = shoal.simulate(plan, scale.apply(train), seed=seed, progress="off")
        return scores(model, scale.apply(test))

    return {
        "federated, standardised": learned(plain, shoal.standardizer(train)),
        "scaled by what is meant": learned(plain, SCALE),
        "clipped": learned(without_noise(private), SCALE),
        f"noise, epsilon {epsilon:g}": learned(private, SCALE),
    }


def study(
    epsilon: float, seeds: int = 20, rounds: int = ROUNDS, tell: Callable[[], None] = lambda: None
) -> Private:  # fmt: skip
    """All ways over that many random splits, the noise another in each; `tell` is called after each."""
    compared: list[dict[str, Scores]] = []
    for seed in range(seeds):
        compared.append(compare(epsilon, rounds, seed))
        tell()
    lines = tuple(summary(way, [ways[way] for ways in compared]) for way in compared[0])
    return Private(Study(seeds, rounds, lines, ()), shoal.privacy.spent(training(epsilon, rounds), delta=DELTA))


if __name__ == "__main__":
    found = study(4.0, seeds=3)
    for line in found.study.lines:
        print(f"{line.way:<40} {line.accuracy['all'][0]:.3f} accuracy, {line.auc['all'][0]:.3f} AUC")
    print(found.spent)
