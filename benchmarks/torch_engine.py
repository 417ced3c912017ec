"""torch models in the engine, beside hand-written torch loops and pfl-research.

pfl-research has an environment of its own: where the variable PFL_PYTHON names its interpreter, it is measured in
the same run, else its rows are left out.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contender import Worker
from benchmarks.report import Report
from benchmarks.workloads import make


@dataclass(frozen=True)
class TorchRace:
    """A workload, the rounds of a short and of a long run, how many blocks, and the loop beside ours."""

    workload: str
    rounds: tuple[int, int]
    blocks: int
    loop: str


RACES = (
    TorchRace("W1", (1, 11), 7, "torch-1"),
    TorchRace("W5", (1, 7), 7, "torch-1"),
    TorchRace("W2", (1, 4), 5, "torch-p2"),
    TorchRace("W3", (1, 3), 5, "torch-p2"),
    TorchRace("W4", (1, 4), 5, "torch-p2"),
)


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows."""
    for race in RACES:
        if only in f"{race.workload} torch" or only.startswith(race.workload):
            _race(report, race, 1 if quick else race.blocks)


def _race(report: Report, race: TorchRace, blocks: int) -> None:
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        ours, loop = (stack.enter_context(Worker.of(race.workload, name)) for name in ("shoal-torch", race.loop))
        pfl = _Pfl.found(race, folder)
        times: dict[str, list[float]] = {"ours": [], "loop": [], "pfl": []}
        for worker in (ours, loop):
            worker.run(1)
        for _ in range(blocks):
            for name, worker in (("ours", ours), ("loop", loop)):
                short, long = race.rounds
                times[name].append((worker.run(long) - worker.run(short)) / (long - short))
            if pfl is not None:
                times["pfl"].append(pfl.seconds())
        seconds = {name: statistics.median(taken) for name, taken in times.items() if taken}
        name = race.workload
        report.add(
            f"{name} torch beside {race.loop}", seconds["ours"], "s/round", reference=seconds["loop"], bound=1.05
        )
        if pfl is not None:
            report.add(f"{name} torch beside pfl-research", seconds["ours"], "s/round", reference=seconds["pfl"],
                       bound=1 / 1.2 if name in ("W2", "W3", "W4") else None)  # fmt: skip
        if name != "W3":  # its dropout draws other numbers
            ours.run(1)
            loop.run(1)
            one, other = (w.vector(str(Path(folder) / f"{i}.npy")) for i, w in enumerate((ours, loop)))
            report.add(f"{name} torch largest difference", float(np.abs(one - other).max()), "", bound=1e-5)


@dataclass(frozen=True)
class _Pfl:
    """pfl-research with two processes, or with one where clients are tiny."""

    command: tuple[str, ...]

    @staticmethod
    def found(race: TorchRace, folder: str) -> _Pfl | None:
        python = os.environ.get("PFL_PYTHON")
        if not python:
            print(f"{race.workload} torch beside pfl-research: left out, PFL_PYTHON is not set", file=sys.stderr)
            return None
        from benchmarks.floor_torch import channels_first

        work = make(race.workload)
        columns, file = channels_first(work.population).columns, Path(folder) / "work.npz"
        given: dict[str, Any] = {"x": columns["x"], "y": columns["y"].astype(np.int64)}
        rounds = max(3, race.rounds[1])
        np.savez(file, offsets=work.population.offsets, cohorts=work.cohorts(rounds), batch=work.batch,
                 rate=work.rate, **given)  # fmt: skip
        processes = "2" if race.loop == "torch-p2" else "1"
        script = str(Path(__file__).with_name("peer_pfl.py"))
        launch = ("-m", "torch.distributed.run", "--nproc-per-node", processes) if processes == "2" else ()
        return _Pfl((python, *launch, script, race.workload, str(file)))

    def seconds(self) -> float:
        """The median round of a run, without the first."""
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"pfl-research failed: {done.stderr[-2000:]}")
        return statistics.median(json.loads(done.stdout.splitlines()[-1])[1:])
