"""The simulation engine: speed beside hand-written loops, start-up, and the quality of the lead demo.

Contenders take turns, a block of rounds each, so that a machine whose speed drifts is as unfair to one as to the
other. A block is the difference between a long run and a short one, so start-up is not in it; the figure is the
median over the blocks.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import keyboard, population, quality, torch_engine
from benchmarks.contender import Worker
from benchmarks.report import Report


@dataclass(frozen=True)
class Race:
    """A workload, the rounds of a short and of a long run, how many blocks, and who is raced."""

    workload: str
    rounds: tuple[int, int]
    blocks: int
    compiled: tuple[str, ...]
    torch: tuple[str, ...]
    shuffled: tuple[str, ...] = ()


RACES = (
    Race("W1", (20, 120), 7, ("jax-scan",), ("torch-1",), ("shoal-shuffled",)),
    Race("W5", (20, 120), 7, ("jax-scan", "jax-vmap"), ("torch-1",), ("shoal-shuffled",)),
    Race("W2", (1, 3), 5, ("jax-step", "jax-patches"), ("torch-1", "torch-2")),
    Race("W3", (1, 2), 5, ("jax-step", "jax-patches"), ("torch-1", "torch-2")),
)
TORCH_ROUNDS = 6
"""The rounds of a block of a torch loop on the small workloads, where it takes a hundred times as long."""


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows."""
    for race in RACES:
        if only in f"{race.workload} seconds a round" or only.startswith(race.workload):
            _race(report, race, quick)
    if only in "import shoal":
        report.add("import shoal", _import_seconds("import shoal") - _import_seconds("pass"), "s", bound=0.5)
    if only in "hospitals accuracy below pooled" and not quick:
        _hospitals(report)
    torch_engine.run(report, only=only, quick=quick)
    population.run(report, only=only, quick=quick)
    quality.run(report, only=only, quick=quick)
    keyboard.run(report, only=only, quick=quick)


def _race(report: Report, race: Race, quick: bool) -> None:
    blocks = 1 if quick else race.blocks
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        ours = stack.enter_context(Worker.of(race.workload, "shoal"))
        first = ours.run(1)
        others = [
            stack.enter_context(Worker.of(race.workload, name))
            for name in (*race.compiled, *race.torch, *race.shuffled)
        ]
        for worker in (ours, *others):
            worker.run(1)
        times: dict[str, list[float]] = {worker.name: [] for worker in (ours, *others)}
        for _ in range(blocks):
            for worker in (ours, *others):
                times[worker.name].append(_block(worker, race))
        seconds = {name: statistics.median(taken) for name, taken in times.items()}
        _rows(report, race, seconds, first)
        if race.workload in ("W1", "W5"):
            _same_weights(report, race, ours, [o for o in others if o.name not in race.shuffled], folder)


def _block(worker: Worker, race: Race) -> float:
    """Seconds a round."""
    short, long = race.rounds
    if worker.name.startswith("torch") and long > 100:
        short, long = 1, 1 + TORCH_ROUNDS
    return (worker.run(long) - worker.run(short)) / (long - short)


def _rows(report: Report, race: Race, seconds: dict[str, float], first: float) -> None:
    name, ours = race.workload, seconds["shoal"]
    for other in (*race.compiled, *race.torch):
        report.add(f"{name} beside {other}", ours, "s/round", reference=seconds[other])
    for other in race.shuffled:
        report.add(f"{name} {other} beside the order given", seconds[other], "s/round", reference=ours)
    if name in ("W1", "W5"):
        report.add(f"{name} seconds a round beside the best compiled loop", ours, "s/round",
                   reference=min(seconds[n] for n in race.compiled), bound=1.5)  # fmt: skip
        report.add(f"{name} seconds a round beside the tuned torch loop", ours, "s/round",
                   reference=seconds["torch-1"], bound=1 / 10 if name == "W1" else 1 / 35)  # fmt: skip
    else:
        best = min(seconds[n] for n in (*race.compiled, *race.torch))
        report.add(f"{name} seconds a round beside the best loop", ours, "s/round", reference=best, bound=1.1)
    report.add(f"{name} first round with compilation", first, "s", bound=None if name == "W3" else 10.0)


def _same_weights(report: Report, race: Race, ours: Worker, others: list[Worker], folder: str) -> None:
    """The largest difference of any weight after six rounds: that the work was the same."""
    ours.run(TORCH_ROUNDS)
    wanted = ours.vector(str(Path(folder) / "shoal.npy"))
    for worker in others:
        worker.run(TORCH_ROUNDS)
        found = worker.vector(str(Path(folder) / f"{worker.name}.npy"))
        difference = float(np.abs(found - wanted).max())
        report.add(f"{race.workload} largest difference from {worker.name}", difference, "", bound=1e-5)


def _import_seconds(code: str) -> float:
    def once() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - begin

    return statistics.median(once() for _ in range(7))


def _hospitals(report: Report) -> None:
    from shoal.demos.hospitals import study

    table = study(seeds=20, rounds=50)
    pooled, federated = (table.accuracy(way) for way in ("pooled", "federated, standardised"))
    report.add("hospitals accuracy below pooled", pooled - federated, "", bound=0.005)
