"""A million clients on disk beside a thousand: memory, and the time for one client of the cohort.

`python -m benchmarks.population FOLDER CLIENTS` is one contender: it maps a population of equal clients, makes it
where it is missing, and answers on stdin as the contenders of the engine do.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import shoal
from benchmarks.contender import Worker, serve
from benchmarks.report import Report

ROWS, FEATURES, COHORT = 20, 10, 1000
SIZES = (1_000, 1_000_000)
BLOCKS, ROUNDS = 21, (10, 210)


TIME = "1,000,000 clients on disk beside 1,000, a client of the cohort"
MEMORY = "1,000,000 clients on disk, peak memory"


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows; none if `quick`, since making the population takes a while."""
    if quick or (only not in TIME and only not in MEMORY):
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        few, many = (
            stack.enter_context(Worker(f"{size} clients", "benchmarks.population", f"{folder}/{size}", str(size)))
            for size in SIZES
        )
        short, long = ROUNDS
        times: dict[str, list[float]] = {few.name: [], many.name: []}
        for worker in (few, many):
            worker.run(short)
        for _ in range(BLOCKS):
            for worker in (few, many):
                times[worker.name].append((worker.run(long) - worker.run(short)) / (long - short) / COHORT)
        seconds = {name: statistics.median(taken) for name, taken in times.items()}
        report.add(TIME, seconds[many.name], "s", reference=seconds[few.name], bound=1.15)
        report.add(MEMORY, float(many.ask("memory")), "GB", bound=1.5)


class Contender:
    """A logistic regression on a cohort of 1,000, from a population on disk."""

    def __init__(self, folder: Path, clients: int) -> None:
        if not folder.exists():
            _make(folder, clients)
        self._population = shoal.open_population(folder)
        self._algorithm = shoal.FedAvg(shoal.models.logistic(FEATURES), batch_size=ROWS, order="given")

    def run(self, rounds: int) -> None:
        """One call of simulate."""
        plan = shoal.Plan(self._algorithm, rounds=rounds, cohort=COHORT)
        shoal.simulate(plan, self._population, every=rounds, progress="off")

    def memory(self) -> float:
        """The most memory that this process has held, in GB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _make(folder: Path, clients: int) -> None:
    """In a process of its own, whose memory does not count."""
    maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, clients))
    maker.start()
    maker.join()


def make(folder: Path, clients: int) -> None:
    """Saves a population of equal clients."""
    random = np.random.default_rng(0)
    truth = random.normal(size=FEATURES).astype(np.float32)
    x = random.standard_normal((clients * ROWS, FEATURES), np.float32)
    y = (x @ truth > 0).astype(np.int32)
    population = shoal.Population(
        tuple(f"{place:07}" for place in range(clients)), {"x": x, "y": y}, np.arange(clients + 1) * ROWS
    )
    shoal.save_population(population, folder)


def main() -> None:
    """Answers until stdin ends."""
    it: Any = Contender(Path(sys.argv[1]), int(sys.argv[2]))
    serve(it)


if __name__ == "__main__":
    main()
