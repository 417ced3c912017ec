"""Four hospitals and a server that are processes of their own: the study, whoever runs it.

Three runs follow each other. The second is told by the first how to standardise, the third measures the model of the
second on patients that nobody learned from. `shoal demo hospitals` runs it over a network, and in `simulate` beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from shoal.data.hospitals import FEATURES, HOSPITALS
from shoal.demos.hospitals import MODEL, WORK

SEED, SPLIT = 0, 0.34
"""Of every run, and the share of patients that are held out."""
RUNS = ("heart-statistics", "heart-training", "heart-evaluation")

THRESHOLD = 3
"""With a secure sum the server sees the sum of so many hospitals, or nothing."""
SUMMED = shoal.Clip(3e7) >> shoal.Quantize(1 / 16) >> shoal.SecureSum(THRESHOLD) >> shoal.Total()
"""Of sums of squares: 400 patients whose cholesterol is 250 have 25 million."""
AVERAGED = shoal.Clip(1.0) >> shoal.Quantize(1e-5) >> shoal.SecureSum(THRESHOLD) >> shoal.Mean()
"""Of what five steps of training change, whose norm stays under 1."""

RANGES = {
    "age": (0, 120), "resting blood pressure": (0, 300), "cholesterol": (0, 1000), "maximum heart rate": (0, 250),
    "ST depression": (-10, 10),
}  # fmt: skip
COLUMNS = [
    shoal.Column(name, least=least, most=most) for name in FEATURES for least, most in [RANGES.get(name, (0, 1))]
]

Columns = dict[str, Any]


@dataclass(frozen=True)
class Terms:
    """How the runs are asked for: by whom sums are seen, how long each stage of a secure one is waited for, epsilon."""

    rounds: int
    secure: bool = False
    stage_s: float = 30.0
    epsilon: float | None = None


Ask = Callable[[str, shoal.Plan], tuple[Any, Mapping[str, float]]]
"""Runs a plan under a name, somewhere: the server's state after it, and the metrics of its last round."""


@dataclass(frozen=True)
class Found:
    """What the server learned: how many patients, their means and deviations, a model, and how good it is."""

    patients: int
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    vector: tuple[float, ...]
    measured: Mapping[str, float]


def study(ask: Ask, rounds: int = 50, *, secure: bool = False) -> Found:
    """The three runs, one after the other; with secure sums, the first two of them."""
    state, _ = ask(RUNS[0], statistics(secure=secure))
    scale = shoal.Standardizer(state.mean, np.where(state.variance > 0, np.sqrt(state.variance), 1.0))
    state_of_model, _ = ask(RUNS[1], training(scale, rounds, secure=secure))
    _, measured = ask(RUNS[2], evaluation(scale, state_of_model.vector))
    return Found(
        int(state.count), tuple(scale.mean.tolist()), tuple(scale.scale.tolist()),
        tuple(np.asarray(state_of_model.vector).tolist()), {name: measured[name] for name in ("accuracy", "loss")},
    )  # fmt: skip


def statistics(*, secure: bool = False) -> shoal.Plan:
    """One round of means and variances of what is learned from."""
    schema = shoal.Schema(COLUMNS, where={"set": "train"})
    asked = shoal.analytics.MeanAndVariance((len(FEATURES),))
    return shoal.Plan(replace(asked, aggregation=SUMMED) if secure else asked, rounds=1, data=schema)


def training(scale: shoal.Standardizer, rounds: int, *, secure: bool = False) -> shoal.Plan:
    """Logistic regression on standardised rows, by federated averaging."""
    work = replace(WORK, aggregation=AVERAGED) if secure else WORK
    return shoal.Plan(work, rounds=rounds, data=schema(scale, "train"))


def evaluation(scale: shoal.Standardizer, vector: Any) -> shoal.Plan:
    """One round that measures a model on the patients who were held out."""
    return shoal.Plan(shoal.FedEval(MODEL, vector), rounds=1, data=schema(scale, "test"))


def schema(scale: shoal.Standardizer, part: str) -> shoal.Schema:
    return shoal.Schema(COLUMNS, "ill", classes=2, where={"set": part}, standardize=(scale.mean, scale.scale))


def tables() -> dict[str, Columns]:
    """Each hospital's patients, as its own table: the columns of the study, and two that it does not ask for."""
    parts = dict(zip(("train", "test"), shoal.hospitals().split_examples(SPLIT, seed=SEED), strict=True))
    return {name: _table({part: population[name] for part, population in parts.items()}) for name in HOSPITALS}


def _table(parts: Mapping[str, Any]) -> Columns:
    x = np.concatenate([rows.rows("x") for rows in parts.values()])
    counts = [int(rows.count) for rows in parts.values()]
    return {
        "patient": np.arange(1, len(x) + 1), **dict(zip(FEATURES, x.T, strict=True)),
        "ill": np.concatenate([rows.rows("y") for rows in parts.values()]),
        "set": np.repeat(list(parts), counts),
    }  # fmt: skip


def write_table(path: Path, table: Columns) -> None:
    """Writes a table as a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow([str(value).removesuffix(".0") for value in row])


def read_table(path: Path) -> Columns:
    """The table of such a file, which needs no package. A text that is a number becomes one."""
    with path.open(newline="", encoding="utf-8") as file:
        names, *rows = csv.reader(file)
    return {name: _column(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _column(texts: tuple[str, ...]) -> Any:
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array(texts)


def simulated(found: Mapping[str, Columns], *, absent: Mapping[tuple[str, int], str] | None = None) -> Ask:
    """Runs plans on this machine, on the tables that the hospitals hold.

    `absent` says by run and round, from 1, which hospital had no part in it.
    """

    def ask(name: str, plan: shoal.Plan) -> tuple[Any, Mapping[str, float]]:
        def online(round: int, check: int) -> list[str]:
            return [site for site in found if site != (absent or {}).get((name, round))]

        there = shoal.Availability(online=online)
        result = shoal.simulate(
            plan, population(found, plan), seed=SEED, runtime="local", progress="off", availability=there
        )  # fmt: skip
        return result.state, dict(result.history.rows[-1])

    return ask


def population(found: Mapping[str, Columns], plan: shoal.Plan) -> shoal.Population:
    """What a plan asks for of the hospitals' tables."""
    assert isinstance(plan.data, shoal.Schema)
    return shoal.Population.from_clients({site: plan.data.columns(table) for site, table in found.items()})
