"""One contender in a process of its own: `python -m benchmarks.contender WORKLOAD NAME`.

It answers lines on stdin: "run N" runs N rounds from the beginning and answers with the seconds, "vector FILE"
saves the parameters. In this way contenders take turns without sharing threads or caches.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import Any, Self

import numpy as np

from benchmarks.workloads import Workload, make


class ShoalContender:
    """The public `simulate`, with metrics on."""

    def __init__(self, work: Workload, order: str) -> None:
        self._work, self._order = work, order
        self._result: Any = None

    def run(self, rounds: int) -> None:
        """One call of simulate."""
        import shoal

        self._result = shoal.simulate(self._work.plan(rounds, self._order), self._work.population, progress="off")

    def vector(self) -> np.ndarray[Any, Any]:
        """The model."""
        return self._result.vector


class ShoalTorchContender:
    """The public `simulate` on a torch module."""

    def __init__(self, work: Workload) -> None:
        import shoal
        from benchmarks.floor_torch import channels_first
        from benchmarks.torch_modules import module

        loss = "binary_cross_entropy" if work.name == "W5" else "cross_entropy"
        self._work, self._model = work, shoal.models.from_torch(module(work.name), loss=loss)
        self._population = channels_first(work.population)
        self._result: Any = None

    def run(self, rounds: int) -> None:
        """One call of simulate."""
        import shoal

        plan = replace(self._work, model=self._model).plan(rounds)
        self._result = shoal.simulate(plan, self._population, progress="off")

    def vector(self) -> np.ndarray[Any, Any]:
        """The model."""
        from benchmarks.floor_torch import as_vector

        return as_vector(self._work, list(self._result.params.values()))


def contender(work: Workload, name: str) -> Any:
    """A contender by name: shoal, shoal-ORDER, shoal-torch, jax-MODE, torch-THREADS or torch-pPROCESSES."""
    kind, _, detail = name.partition("-")
    if name == "shoal-torch":
        return ShoalTorchContender(work)
    if kind == "shoal":
        return ShoalContender(work, detail or "given")
    if kind == "jax":
        from benchmarks.floor_jax import JaxFloor

        return JaxFloor(work, detail)
    from benchmarks.floor_torch import TorchFloor, TorchProcesses

    return TorchProcesses(work, int(detail[1:])) if detail.startswith("p") else TorchFloor(work, int(detail))


class Worker:
    """A contender's process, seen from the benchmark: `python -m MODULE ARGUMENTS`."""

    def __init__(self, name: str, module: str, *arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        self.name = name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("ready")

    @staticmethod
    def of(workload: str, name: str) -> Worker:
        """The process of a contender by name."""
        return Worker(name, "benchmarks.contender", workload, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, rounds: int) -> float:
        """Seconds of so many rounds from the beginning."""
        return float(self.ask(f"run {rounds}"))

    def vector(self, file: str) -> np.ndarray[Any, Any]:
        """The parameters after the last run."""
        self.ask(f"vector {file}")
        return np.load(file)

    def ask(self, question: str) -> str:
        """Its answer to a line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} stopped while it was asked to {question}")
        return answer


def main() -> None:
    """Answers for a contender by name."""
    serve(contender(make(sys.argv[1]), sys.argv[2]))


def serve(it: Any) -> None:
    """Answers until stdin ends."""
    for line in sys.stdin:
        match line.split():
            case ["run", rounds]:
                begin = time.perf_counter()
                it.run(int(rounds))
                answer = str(time.perf_counter() - begin)
            case ["vector", file]:
                np.save(file, it.vector())
                answer = "saved"
            case ["memory"]:
                answer = str(it.memory())
            case _:
                answer = "ready"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
