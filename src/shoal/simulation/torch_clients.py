"""Clients of a torch model, trained one after another in one process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from shoal.data import LazyPopulation, Population
from shoal.errors import DataError, RunError
from shoal.examples import Examples
from shoal.extras import needed
from shoal.models.torch import TorchModel
from shoal.models.torch_descent import Descent
from shoal.models.torch_optimizers import Rule
from shoal.models.torch_rows import inputs, labels

torch = needed("torch", "torch")

Array = np.ndarray[Any, Any]
Tensor = Any


@dataclass(frozen=True)
class Job:
    """The clients to train in a round: their places in the population, a seed for each, and the round's rule."""

    places: Array
    seeds: Array
    rule: Rule

    def part(self, rows: Any) -> Job:
        """Some of the clients."""
        return Job(self.places[rows], self.seeds[rows], self.rule)


@dataclass(frozen=True)
class Told:
    """What training told of each client of a job: examples, whether they can be used, the loss summed and the rows it
    was summed over. `failed` says of clients that could not be loaded what went wrong, by row of the job."""

    examples: Array
    usable: Array
    loss: Array
    failed: dict[int, str] = field(default_factory=dict)

    @staticmethod
    def nothing(clients: int) -> Told:
        """Nothing of that many clients."""
        return Told(np.zeros(clients, np.int32), np.zeros(clients, bool), np.zeros((clients, 2), np.float32))


class Sink(Protocol):
    """Where what changed on clients goes."""

    def put(self, row: int, change: Tensor, examples: int) -> None:
        """Takes one client's change, which is only lent."""
        ...

    def put_all(self, rows: Array, changes: Tensor, examples: int) -> None:
        """Takes the changes of clients that have equally many examples."""
        ...


@dataclass(frozen=True)
class Rows:
    """A row for every client: of the client's own number, or as `at` says."""

    rows: Tensor
    at: Sequence[int] | None = None

    def put(self, row: int, change: Tensor, examples: int) -> None:
        """Copies it to its row."""
        self.rows[row if self.at is None else self.at[row]].copy_(change)

    def put_all(self, rows: Array, changes: Tensor, examples: int) -> None:
        """Copies them."""
        self.rows[torch.from_numpy(rows)] = changes.cpu()


@dataclass(frozen=True)
class Added:
    """A running sum. With a cap a client counts by its examples over the cap, at most once; without by one."""

    total: Tensor
    cap: float | None

    def put(self, row: int, change: Tensor, examples: int) -> None:
        """Adds it."""
        self.total.add_(change, alpha=self._weight(examples))

    def put_all(self, rows: Array, changes: Tensor, examples: int) -> None:
        """Adds them."""
        self.total.add_(changes.sum(0), alpha=self._weight(examples))

    def _weight(self, examples: int) -> float:
        return 1.0 if self.cap is None else min(examples, self.cap) / self.cap


class Crew(Protocol):
    """Who trains the clients of a job."""

    def train(self, job: Job, start: Tensor, sink: Sink) -> Told:
        """Trains them from `start`, and puts what changed into the sink, but for what is not finite."""
        ...


class TorchClients:
    """A population's rows as tensors, client by client."""

    def __init__(self, population: Population | LazyPopulation, model: TorchModel) -> None:
        self.names: Sequence[str] = population.names
        self._population, self._model = population, model
        self.whole = None
        if isinstance(population, Population) and not population.mapped:
            self.whole = self._tensors(population.everything())
            self._offsets: list[int] = population.offsets.tolist()
            self.usable: list[bool] = population.usable.tolist()

    def at(self, place: int) -> tuple[Tensor, Tensor, bool]:
        """Inputs, labels, and whether they can be used; DataError for a client that cannot be loaded."""
        if self.whole is not None:
            start, end = self._offsets[place], self._offsets[place + 1]
            return self.whole[0][start:end], self.whole[1][start:end], self.usable[place]
        if isinstance(self._population, LazyPopulation):
            data = self._population.at(place, check=self._model.check)
        else:
            data = self._population.at(place)
        return *self._tensors(data), bool(data.usable)

    def _tensors(self, data: Examples) -> tuple[Tensor, Tensor]:
        model = self._model
        return inputs(data.rows(model.x), model.device), labels(data.rows(model.y), model.loss, model.device)


class OneByOne:
    """Trains clients one after another."""

    def __init__(self, clients: TorchClients, descent: Descent) -> None:
        self._clients, self._descent = clients, descent
        self._change = torch.empty_like(descent.flat.vector)

    def __str__(self) -> str:
        return "1"

    def train(self, job: Job, start: Tensor, sink: Sink) -> Told:
        """Trains the clients of a job; those whose change is not finite are told as not usable, and not put."""
        told = Told.nothing(len(job.places))
        descent, change, rule = self._descent, self._change, job.rule
        for row, (place, seed) in enumerate(zip(job.places.tolist(), job.seeds.tolist(), strict=True)):
            try:
                x, y, usable = self._clients.at(place)
            except DataError as error:
                told.failed[row] = str(error)
                continue
            if not usable or not len(y):
                continue
            try:
                total, seen = descent.train(start, x, y, rule=rule, seed=seed)
            except RunError as error:
                raise RunError(f"client {self._clients.names[place]!r}: {error}") from error
            torch.sub(descent.flat.vector, start, out=change)
            told.examples[row] = len(y)
            told.loss[row, 0], told.loss[row, 1] = total, seen
            if math.isfinite(total) and _is_finite(change):
                told.usable[row] = True
                sink.put(row, change, len(y))
        return told


def _is_finite(vector: Tensor) -> bool:
    """A sum is finite only if its terms are; the converse is looked into where it fails."""
    return math.isfinite(vector.sum().item()) or bool(torch.isfinite(vector).all())
