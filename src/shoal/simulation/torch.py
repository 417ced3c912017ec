"""The runtime for torch models: one module that all clients of a process are trained in, and a process a core for
large ones.

Only training is torch. What a client sends is made by the same `client_turn` as everywhere, compiled for a cohort;
where a chain only weighs and adds, each client's change is added as soon as it is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shoal.aggregation import Aggregation, Payload, PlainSum
from shoal.algorithms import Call, Local, Run, client_turn, close_round, enter, open_round, run_round
from shoal.algorithms.fedavg import Averaging
from shoal.data import LazyPopulation, Population
from shoal.examples import Examples
from shoal.extras import needed
from shoal.key import Key, name_words
from shoal.models.torch_descent import undisturbed
from shoal.models.torch_optimizers import rule
from shoal.models.torch_rows import tensor
from shoal.programs import compiled
from shoal.simulation.cohorts import Cohort, Cohorts
from shoal.simulation.cores import LARGE, cores
from shoal.simulation.folding import cohort_total
from shoal.simulation.records import RoundRecord, means
from shoal.simulation.torch_clients import Added, Crew, Job, OneByOne, Rows, Told, TorchClients
from shoal.simulation.torch_lanes import lockstep
from shoal.simulation.torch_workers import Workers, can_fork
from shoal.steps import Weigh
from shoal.vector import Layout

torch = needed("torch", "torch")

Array = np.ndarray[Any, Any]
Tensor = Any

HELD_BYTES = 1 << 28
"""The most bytes of clients' changes that are held side by side."""


class TorchRuntime:
    """Rounds of a torch model."""

    def __init__(self, algorithm: Averaging, population: Population | LazyPopulation, cohorts: Cohorts) -> None:
        self._algorithm, self._cohorts = algorithm, cohorts
        self._model: Any = algorithm.model
        self._words = np.array([name_words(name) for name in cohorts.names], np.uint32)
        clients = TorchClients(population, self._model)
        self._small = algorithm.layout.size < LARGE
        rows = max(1, HELD_BYTES // algorithm.layout.size_bytes)
        self._lanes = 32 if algorithm.layout.size <= 1024 else 1
        self._width = -(-min(rows, cohorts.most) // self._lanes) * self._lanes
        self._crew, self._rows = self._gathered(clients, population)
        first = enter(algorithm)
        self.states: Any = jax.tree.map(lambda part: np.repeat(np.asarray(part)[None], len(cohorts.names), 0), first)

    def _gathered(self, clients: TorchClients, population: Population | LazyPopulation) -> tuple[Crew, Tensor]:
        """Who trains, and where changes lie side by side."""
        size, training = self._algorithm.layout.size, self._algorithm.training
        counts = population.counts if isinstance(population, Population) else None
        one = OneByOne(clients, self._model.descent(training))
        workers = min(cores(), self._cohorts.most)
        if self._small or workers == 1 or self._model.device != "cpu" or not can_fork():
            together = None if counts is None else lockstep(clients, self._model, training, counts)
            return together or one, torch.zeros((self._width, size))
        several = Workers(one, size, rows=self._width, workers=workers, counts=counts)
        return several, several.rows

    def __str__(self) -> str:
        return f"torch ({self._crew})"  # partial sums depend on how many processes there are

    def restore(self, states: Any) -> None:
        """Puts back what clients remembered."""
        self.states = jax.tree.map(np.array, states)

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs one round."""
        number = int(run.round)
        drawn = self._cohorts.draw(number)
        key = self._cohorts.key.split("round", number)
        with undisturbed(one_thread=self._small):
            total, states, told = self._turns(run, drawn.places, key)
        if not len(drawn.places):
            done = run_round(self._algorithm, run, {}, {}, key)
            return done.run, [self._record(number, done.report, drawn, told)]
        run, report = close_round(self._algorithm, run, total, key.split("server"))
        if report.released:
            self._remember(drawn.places, states)
        return run, [self._record(number, report, drawn, told)]

    def _turns(self, run: Run[Any], places: Array, key: Key) -> tuple[Any, list[Any], Told]:
        """The payloads of a cohort, added up; the states of its clients after it; and what was told of them."""
        start: Any = open_round(self._algorithm, run).message
        sent = tensor(np.array(start.vector, np.float32)).to(self._model.device)
        keys = self._keys(places, key)
        seeds = np.asarray(keys.split("local", "train").low)[: len(places)].astype(np.int64)
        job = Job(places, seeds, rule(self._algorithm.training.optimizer, start.round))
        if _only_adds(run.aggregation):
            return self._added(run.aggregation, job, sent)
        total: Any = None
        states: list[Any] = []
        told: list[Told] = []
        for begin in range(0, len(places), self._width):
            rows = slice(begin, begin + self._width)
            payload, after, present = self._encoded(run, job.part(rows), sent, Key(keys.high[rows], keys.low[rows]))
            total = payload if total is None else total + payload
            states.append(after)
            told.append(present)
        return total, states, _joined(told)

    def _added(self, aggregation: Aggregation, job: Job, start: Tensor) -> tuple[Any, list[Any], Told]:
        cap = aggregation.cap if aggregation.steps else None
        sums = torch.zeros_like(start)
        told = self._crew.train(job, start, Added(sums, cap))
        there = told.usable
        weights = np.minimum(told.examples[there], cap) if cap is not None else there[there]
        payload = Payload(
            sums.cpu().numpy(),
            np.float32(weights.sum(dtype=np.float64)),
            {"loss": told.loss[there].sum(0, dtype=np.float64).astype(np.float32)},
            np.int32(there.sum()),
        )
        return payload, [], told

    def _encoded(self, run: Run[Any], job: Job, start: Tensor, keys: Key) -> tuple[Any, Any, Told]:
        """The payloads of some clients, as many as are held side by side."""
        told = self._crew.train(job, start, Rows(self._rows))
        size = len(job.places)
        at = np.concatenate([job.places, np.zeros(self._width - size, np.int64)])
        states = jax.tree.map(lambda every: every[at], self.states)
        keys = Key(_padded(keys.high, self._width), _padded(keys.low, self._width))
        call: Call[None] = Call(None, run.aggregation, np.int32(0), run.memory.setting)
        total, after, present = _payloads(
            self._algorithm.layout, self._lanes, call, states, self._rows.numpy(), _filled(told, self._width),
            np.int32(size), keys,
        )  # fmt: skip
        told.usable[:] = np.asarray(present)[:size] > 0
        return total, jax.tree.map(lambda part: np.array(part[:size]), after), told

    def _keys(self, places: Array, key: Key) -> Key:
        """The key of each client; as many as of the largest cohort, since a call is compiled for each number."""
        words = _padded(self._words[places], max(self._cohorts.most, len(places)))
        return key.split("client").fold(words[:, 0], words[:, 1])

    def _remember(self, places: Array, states: list[Any]) -> None:
        for begin, after in zip(range(0, len(places), self._width), states, strict=False):
            some = places[begin : begin + self._width]
            jax.tree.map(lambda every, new, some=some: every.__setitem__(some, new), self.states, after)

    def _record(self, number: int, report: Any, drawn: Cohort, told: Told) -> RoundRecord:
        rejected = drawn.places[~told.usable]
        return RoundRecord(
            number + 1,
            int(report.clients),
            tuple(self._cohorts.names[int(place)] for place in rejected),
            bool(report.released),
            means(report.metrics),
            lost=drawn.lost,
            waited=drawn.waited,
            failures=tuple(told.failed.values()),
        )


def suits(algorithm: Any, population: Any) -> bool:
    """Whether this runtime can run an algorithm: one whose clients do nothing but train a torch model."""
    return (
        isinstance(algorithm, Averaging)
        and type(algorithm).local is Averaging.local
        and type(algorithm).broadcast is Averaging.broadcast
        and isinstance(population, Population | LazyPopulation)
    )


def _only_adds(aggregation: Aggregation) -> bool:
    """Whether a client's value is added as it is, or weighed by its examples."""
    return type(aggregation.meeting) is PlainSum and all(type(step) is Weigh for step in aggregation.steps)


@dataclass(frozen=True)
class _Trained:
    """An algorithm whose clients have trained already: their change is their data."""

    layout: Layout

    def local(self, message: None, data: Examples, client_state: Any, key: Key) -> Local:
        """What is there."""
        return Local(data.columns["change"], data.count, client_state, {"loss": data.columns["loss"]})


@compiled(2)
def _payloads(
    layout: Layout, lanes: int, call: Call[None], states: Any, changes: Any, told: Any, size: Any, keys: Key
) -> Any:
    examples, usable, loss = told
    algorithm: Any = _Trained(layout)

    def turn(row: Any, state: Any, key: Key) -> Any:
        data = Examples({"change": changes[row], "loss": loss[row]}, 0, examples[row], usable[row], 1)
        return client_turn(algorithm, call, data, state, key)

    return cohort_total(turn, lanes, states, jnp.arange(changes.shape[0]), size, keys)


def _padded(array: Any, length: int) -> Any:
    array = np.asarray(array)
    return np.concatenate([array, np.zeros((length - len(array), *array.shape[1:]), array.dtype)])


def _filled(told: Told, length: int) -> tuple[Array, Array, Array]:
    return _padded(told.examples, length), _padded(told.usable, length), _padded(told.loss, length)


def _joined(told: list[Told]) -> Told:
    """What was told of the parts of a cohort, one after the other."""
    if not told:
        return Told.nothing(0)
    failed: dict[int, str] = {}
    before = 0
    for part in told:
        failed |= {before + row: why for row, why in part.failed.items()}
        before += len(part.examples)
    examples, usable, loss = (
        np.concatenate([getattr(part, name) for part in told]) for name in ("examples", "usable", "loss")
    )
    return Told(examples, usable, loss, failed)
