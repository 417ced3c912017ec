"""Differential privacy: how fast secure noise is beside NumPy's generator, and what noise adds to a simulated round.

Noise is CPU seconds of one core; NumPy's normal numbers are drawn in between, so a machine whose speed drifts is as
unfair to one as to the other. Rounds are as in `engine`: a long run less a short one, contenders in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import shoal
from benchmarks import utility
from benchmarks.report import Report
from benchmarks.workloads import make
from shoal.noise.source import SecureNoise
from shoal.noise.tables import discrete_gaussian, skellam

DRAWS = 1_000_000
DEVIATIONS = (4.0, 64.0, 1000.0)
ROUNDS = (1, 4)
BLOCKS = 5


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows."""
    for name, (draw, bound) in _sources().items():
        if only in name:
            _noise(report, name, draw, bound, 3 if quick else 15)
    if only in (name := "secure discrete Gaussian, making a table for 1000"):
        begun = time.process_time()
        discrete_gaussian.__wrapped__(DEVIATIONS[-1])
        report.add(name, time.process_time() - begun, "s")
    for name, chain in _chains().items():
        if only in f"W2 {name}":
            _rounds(report, f"W2 {name}", chain, 1 if quick else BLOCKS)
    utility.run(report, only=only, quick=quick)


def _sources() -> dict[str, tuple[Callable[[], Any], float]]:
    """What draws a million numbers, and how many times as long as NumPy it may take."""
    noise, floats, integers = SecureNoise(), np.zeros(DRAWS), np.zeros(DRAWS, np.int32)
    found: dict[str, tuple[Callable[[], Any], float]] = {"secure Gaussian": (lambda: noise.normal(floats), 4)}
    for deviation in DEVIATIONS:
        discrete_gaussian(deviation), skellam(deviation**2)
        found[f"secure discrete Gaussian, {deviation:.0f}"] = (
            lambda deviation=deviation: noise.discrete_gaussian(deviation, integers), 5
        )  # fmt: skip
        found[f"secure Skellam, {deviation:.0f}"] = (
            lambda deviation=deviation: noise.skellam(deviation**2, integers), 5
        )  # fmt: skip
    found["secure discrete Gaussian, 100000"] = (lambda: noise.discrete_gaussian(1e5, integers), 5)
    return found


def _chains() -> dict[str, Any]:
    """Chains with noise. The multiplier is small, so that training goes as it does without."""
    return {
        "with Gaussian": shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(1e-3, clients=20),
        "with DiscreteGaussian": shoal.Clip(1.0)
        >> shoal.Quantize(1e-5)
        >> shoal.PlainSum()
        >> shoal.DiscreteGaussian(1e-3, clients=20),
    }


def _noise(report: Report, name: str, draw: Callable[[], Any], bound: float, times: int) -> None:
    """A row in nanoseconds a value, and one in values a second."""
    generator = np.random.default_rng()
    taken, beside = list[float](), list[float]()
    for _ in range(times):
        beside.append(_cpu(lambda: generator.standard_normal(DRAWS)))
        taken.append(_cpu(draw))
    seconds, numpys = statistics.median(taken), statistics.median(beside)
    report.add(name, seconds / DRAWS * 1e9, "ns/value", reference=numpys / DRAWS * 1e9, bound=bound)
    report.add(f"{name}, throughput", DRAWS / seconds, "values/s", reference=DRAWS / numpys)


def _rounds(report: Report, name: str, chain: Any, blocks: int) -> None:
    """A round with noise beside the same round with the mean."""
    work, seconds = make("W2"), dict[str, list[float]]({"noise": [], "mean": []})
    plans = {"noise": _plans(work, chain), "mean": _plans(work, shoal.mean())}
    for block in range(-1, blocks):
        for kind, (short, long) in plans.items():
            taken = _wall(work, long) - _wall(work, short)
            if block >= 0:  # the first compiles
                seconds[kind].append(taken / (ROUNDS[1] - ROUNDS[0]))
    noise, mean = (statistics.median(taken) for taken in seconds.values())
    report.add(name, noise, "s/round", reference=mean, bound=1.15)


def _plans(work: Any, chain: Any) -> list[shoal.Plan]:
    plans = [work.plan(rounds) for rounds in ROUNDS]
    return [replace(plan, algorithm=replace(plan.algorithm, aggregation=chain)) for plan in plans]


def _wall(work: Any, plan: shoal.Plan) -> float:
    begun = time.perf_counter()
    shoal.simulate(plan, work.population, progress="off")
    return time.perf_counter() - begun


def _cpu(draw: Callable[[], Any]) -> float:
    begun = time.process_time()
    draw()
    return time.process_time() - begun
