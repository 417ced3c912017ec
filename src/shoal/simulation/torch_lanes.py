"""Tiny clients with equally many examples, trained in lockstep."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.algorithms import Training
from shoal.extras import needed
from shoal.models.torch import TorchModel
from shoal.models.torch_descent import undisturbed
from shoal.models.torch_lanes import Lanes
from shoal.models.torch_optimizers import rule
from shoal.simulation.torch_clients import Job, Rows, Sink, Told, TorchClients

torch = needed("torch", "torch")

Tensor = Any

ROWS, SIZE, LANES = 256, 1024, 512
"""The most examples a client may have, the most parameters, and how many clients go together."""


class InLockstep:
    """Trains some hundred clients at once."""

    def __init__(self, clients: TorchClients, model: TorchModel, training: Training, rows: int) -> None:
        assert clients.whole is not None
        self._x, self._y = (column.unflatten(0, (-1, rows)) for column in clients.whole)
        self._usable = np.array(clients.usable)
        self._lanes = Lanes(model.flat, model.layout, model.loss, training)

    def __str__(self) -> str:
        return "lockstep"

    def train(self, job: Job, start: Tensor, sink: Sink) -> Told:
        """Trains the clients of a job; those whose change is not finite are told as not usable, and not put."""
        told = Told.nothing(len(job.places))
        usable = np.flatnonzero(self._usable[job.places])
        for begin in range(0, len(usable), LANES):
            self._some(job, usable[begin : begin + LANES], start, sink, told)
        return told

    def _some(self, job: Job, rows: Any, start: Tensor, sink: Sink, told: Told) -> None:
        places = torch.from_numpy(np.asarray(job.places[rows], np.int64)).to(start.device)
        x, y = self._x[places], self._y[places]
        seeds = job.seeds[rows].tolist()
        changes, total, seen = self._lanes.train(start, x, y, rule=job.rule, seeds=seeds)
        told.examples[rows] = y.shape[1]
        told.loss[rows] = np.stack([total.cpu().numpy(), np.full(len(rows), seen)], axis=1)
        finite = (torch.isfinite(changes).all(1) & torch.isfinite(total)).cpu().numpy()
        told.usable[rows] = finite
        if not finite.all():
            rows, changes = rows[finite], changes[torch.from_numpy(finite).to(start.device)]
        sink.put_all(rows, changes, y.shape[1])


def lockstep(clients: TorchClients, model: TorchModel, training: Training, counts: Any) -> InLockstep | None:
    """Lockstep training, where clients are equal and tiny and torch can do it for this module; else None."""
    rows = int(counts.max())
    tiny = rows <= ROWS and model.layout.size <= SIZE and int(counts.min()) == rows
    if not tiny or not model.flat.bare or model.optimizer is not None or clients.whole is None:
        return None
    crew = InLockstep(clients, model, training, rows)
    trial = Job(np.zeros(1, np.int64), np.zeros(1, np.int64), rule(training.optimizer, 0))
    try:
        with undisturbed(one_thread=True):
            crew.train(trial, model.flat.vector.clone(), Rows(torch.empty(1, model.layout.size)))
    except Exception:  # whatever torch cannot do in lockstep it may do for one client after another
        return None
    return crew
