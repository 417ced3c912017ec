"""One contender in a process of its own: `python -m benchmarks.contender WORKLOAD NAME`.

It answers lines on stdin: "run N" runs N rounds from the beginning and answers with the seconds, "vector FILE"
saves the parameters. In this way contenders take turns without sharing threads or caches.
"""

from __future__ import annotations

import subprocess
import sys
import time
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


def contender(work: Workload, name: str) -> Any:
    """A contender by name: shoal, shoal-ORDER, jax-MODE or torch-THREADS."""
    kind, _, detail = name.partition("-")
    if kind == "shoal":
        return ShoalContender(work, detail or "given")
    if kind == "jax":
        from benchmarks.floor_jax import JaxFloor

        return JaxFloor(work, detail)
    from benchmarks.floor_torch import TorchFloor

    return TorchFloor(work, int(detail))


class Worker:
    """A contender's process, seen from the benchmark."""

    def __init__(self, workload: str, name: str) -> None:
        command = [sys.executable, "-m", "benchmarks.contender", workload, name]
        self.name = name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, rounds: int) -> float:
        """Seconds of so many rounds from the beginning."""
        return float(self._ask(f"run {rounds}"))

    def vector(self, file: str) -> np.ndarray[Any, Any]:
        """The parameters after the last run."""
        self._ask(f"vector {file}")
        return np.load(file)

    def _ask(self, question: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} stopped while it was asked to {question}")
        return answer


def main() -> None:
    """Answers until stdin ends."""
    it = contender(make(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        match line.split():
            case ["run", rounds]:
                begin = time.perf_counter()
                it.run(int(rounds))
                answer = str(time.perf_counter() - begin)
            case ["vector", file]:
                np.save(file, it.vector())
                answer = "saved"
            case _:
                answer = "ready"
        print(answer, flush=True)


if __name__ == "__main__":
    main()
