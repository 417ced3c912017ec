"""The hand-written PyTorch loop, tuned: one model, weights copied in and out, gradients taken and steps made on
whole lists of tensors, no optimizer object, no framework around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.workloads import Workload


class TorchFloor:
    """One process; `threads` inside an operation."""

    def __init__(self, work: Workload, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._work, self._offsets = work, work.population.offsets
        columns = work.population.columns
        x = np.ascontiguousarray(np.moveaxis(columns["x"], -1, 1)) if columns["x"].ndim == 4 else columns["x"]
        self._x, self._y = torch.from_numpy(x.copy()), torch.from_numpy(columns["y"].astype(np.int64))
        self._model = _model(work).train()
        self._begin = _weights(work)
        self.params = [p.clone() for p in self._begin]

    def run(self, rounds: int) -> None:
        """Rounds from the beginning."""
        now = [p.clone() for p in self._begin]
        own = list(self._model.parameters())
        for cohort in self._work.cohorts(rounds):
            total = [torch.zeros_like(p) for p in now]
            seen = 0
            for client in cohort:
                a, b = int(self._offsets[client]), int(self._offsets[client + 1])
                self._train(own, now, self._x[a:b], self._y[a:b])
                with torch.no_grad():
                    torch._foreach_add_(total, own, alpha=float(b - a))
                seen += b - a
            now = [t / seen for t in total]
        self.params = now

    def _train(self, own: Any, now: Any, x: Any, y: Any) -> None:
        with torch.no_grad():
            torch._foreach_copy_(own, now)
        for i in range(0, len(x), self._work.batch):
            out = self._model(x[i : i + self._work.batch])
            gradient = torch.autograd.grad(_loss(self._work, out, y[i : i + self._work.batch]), own)
            with torch.no_grad():
                torch._foreach_add_(own, gradient, alpha=-self._work.rate)

    def vector(self) -> np.ndarray[Any, Any]:
        """The parameters as the model's vector (linear models only)."""
        weight, bias = (p.numpy() for p in self.params)
        return np.asarray(self._work.model.vector({"weight": weight.T, "bias": bias}))


def _loss(work: Workload, out: Any, y: Any) -> Any:
    if work.name == "W5":
        return functional.binary_cross_entropy_with_logits(out[:, 0], y.to(out.dtype))
    return functional.cross_entropy(out, y)


class _Cnn(torch.nn.Module):
    def __init__(
        self, sides: int, channels: int, padding: int, hidden: tuple[int, int], classes: int, drop: bool
    ) -> None:
        super().__init__()
        self.c1 = torch.nn.Conv2d(channels, 32, sides, padding=padding)
        self.c2 = torch.nn.Conv2d(32, 64, sides, padding=padding)
        self.f1, self.f2 = torch.nn.Linear(*hidden), torch.nn.Linear(hidden[1], classes)
        self.drop = drop

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.c1(x))
        x = functional.relu(self.c2(x)) if self.drop else functional.relu(self.c2(functional.max_pool2d(x, 2)))
        x = functional.max_pool2d(x, 2).flatten(1)
        if not self.drop:
            return self.f2(functional.relu(self.f1(x)))
        x = functional.relu(self.f1(functional.dropout(x, 0.25, self.training)))
        return self.f2(functional.dropout(x, 0.5, self.training))


def _model(work: Workload) -> Any:
    match work.name:
        case "W1":
            return torch.nn.Linear(60, 10)
        case "W5":
            return torch.nn.Linear(10, 1)
        case "W2":
            return _Cnn(5, 1, 2, (3136, 512), 62, False)
        case _:
            return _Cnn(3, 3, 0, (12544, 128), 10, True)


def _weights(work: Workload) -> list[Any]:
    """Zeros for linear models, as theirs; for CNNs PyTorch's own draw, since only the time is compared."""
    model = _model(work)
    if work.name in ("W1", "W5"):
        return [torch.zeros_like(p) for p in model.parameters()]
    return [p.detach().clone() for p in model.parameters()]
