"""The hand-written PyTorch loop, tuned: one model, weights copied in and out, gradients taken and steps made on
whole lists of tensors, no optimizer object, no framework around it. In one process, or the cohort dealt out to
several forked ones with the allocator set."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import warnings
from typing import Any

import numpy as np
import torch

from benchmarks.torch_modules import loss, module
from benchmarks.workloads import Workload


class TorchFloor:
    """One process; `threads` inside an operation."""

    def __init__(self, work: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        self._work, self._offsets = work, work.population.offsets
        population = channels_first(work.population)
        self._x = torch.from_numpy(population.columns["x"].copy())
        self._y = torch.from_numpy(population.columns["y"].astype(np.int64))
        self._model = module(work.name).train()
        self._own = list(self._model.parameters())
        self._begin = [p.detach().clone() for p in self._own]
        self.params = [p.clone() for p in self._begin]

    def run(self, rounds: int) -> None:
        """Rounds from the beginning."""
        now = [p.clone() for p in self._begin]
        for cohort in self._work.cohorts(rounds):
            total = [torch.zeros_like(p) for p in now]
            seen = self._add(cohort, now, total)
            now = [t / seen for t in total]
        self.params = now

    def _add(self, cohort: Any, now: Any, total: Any) -> int:
        seen = 0
        for client in cohort:
            a, b = int(self._offsets[client]), int(self._offsets[client + 1])
            self._train(now, self._x[a:b], self._y[a:b])
            with torch.no_grad():
                torch._foreach_add_(total, self._own, alpha=float(b - a))
            seen += b - a
        return seen

    def _train(self, now: Any, x: Any, y: Any) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self._own, now)
        for i in range(0, len(x), self._work.batch):
            out = self._model(x[i : i + self._work.batch])
            gradient = torch.autograd.grad(loss(self._work.name, out, y[i : i + self._work.batch]), self._own)
            with torch.no_grad():
                torch._foreach_add_(self._own, gradient, alpha=-self._work.rate)

    def vector(self) -> np.ndarray[Any, Any]:
        """The parameters as the JAX model's vector for linear models, else one after the other."""
        return as_vector(self._work, [p.numpy() for p in self.params])


class TorchProcesses(TorchFloor):
    """The cohort dealt out to forked processes, largest clients first; partial sums in shared memory."""

    def __init__(self, work: Workload, processes: int) -> None:
        super().__init__(work, 1)
        self._now = [p.clone().share_memory_() for p in self._begin]
        self._totals = [[torch.zeros_like(p).share_memory_() for p in self._begin] for _ in range(processes)]
        self._lines = [self._forked(total) for total in self._totals]

    def _forked(self, total: Any) -> Any:
        forking = multiprocessing.get_context("fork")
        line, end = forking.Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of every fork; these children never use it
            forking.Process(target=self._serve, args=(end, total), daemon=True).start()
        return line

    def _serve(self, line: Any, total: Any) -> None:
        torch.set_num_threads(1)
        library = ctypes.CDLL(None)
        library.mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap,
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and stay there
        parent = os.getppid()
        while os.getppid() == parent:  # whoever ended without a word takes its workers along
            if not line.poll(1):
                continue
            clients = line.recv()
            for t in total:
                t.zero_()
            line.send(self._add(clients, self._now, total))

    def run(self, rounds: int) -> None:
        """Rounds from the beginning."""
        for now, begin in zip(self._now, self._begin, strict=True):
            now.copy_(begin)
        for cohort in self._work.cohorts(rounds):
            order = sorted(cohort, key=lambda client: -self._work.population.counts[client])
            for place, line in enumerate(self._lines):
                line.send(order[place :: len(self._lines)])
            seen = sum(line.recv() for line in self._lines)
            for now, *parts in zip(self._now, *self._totals, strict=True):
                now.copy_(sum(parts) / seen)
        self.params = [p.clone() for p in self._now]


def channels_first(population: Any) -> Any:
    """The population with pictures as torch wants them."""
    x = population.columns["x"]
    return population.with_column("x", np.ascontiguousarray(np.moveaxis(x, -1, 1))) if x.ndim == 4 else population


def as_vector(work: Workload, arrays: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The JAX model's vector for linear models, so that all contenders can be compared; else the arrays joined."""
    if work.name in ("W1", "W5"):
        return np.asarray(work.model.vector({"weight": arrays[0].T, "bias": arrays[1]}))
    return np.concatenate([array.ravel() for array in arrays])
