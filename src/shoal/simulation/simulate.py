"""`simulate`: runs a plan on this machine."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shoal.algorithms import Run
from shoal.algorithms import start as begin
from shoal.data import LazyPopulation, Population
from shoal.errors import (
    CheckpointError,
    DivergedError,
    RejectedError,
    SettingError,
    TooFewClientsError,
    UnsupportedError,
)
from shoal.key import Key
from shoal.model_file import check_model_place, write_model
from shoal.plan import Plan
from shoal.settings import number, whole
from shoal.simulation.availability import Availability
from shoal.simulation.callbacks import Audience, Beginning, Callback, Function, audience, checked
from shoal.simulation.checkpoint import Checkpoint
from shoal.simulation.cohorts import Cohorts
from shoal.simulation.compiled import CompiledRuntime
from shoal.simulation.cores import CoresRuntime, suits
from shoal.simulation.evaluation import Evaluation, evaluate, measure
from shoal.simulation.given import identity, prepared
from shoal.simulation.history import History
from shoal.simulation.interrupts import interrupts
from shoal.simulation.local import LocalRuntime
from shoal.simulation.noise import simulated
from shoal.simulation.records import RoundRecord, Runtime
from shoal.simulation.rehearsal import Rehearsal

Test = Population | Callable[[Any], Mapping[str, float]]
"""Held-out clients to measure the model on, or a function of the run's state that gives numbers."""


@dataclass(frozen=True)
class Result:
    """What a simulation leaves: the plan, the server's last state, the history, and why it stopped if it did.

    `stopped` is a sentence if a callback ended the run before the plan's last round. `failures` says what went wrong
    with clients that could not be loaded or sent what the plan does not declare, and with secure sums: each sentence
    once.
    """

    plan: Plan
    run: Run[Any]
    history: History
    stopped: str | None = None
    failures: tuple[str, ...] = ()

    @property
    def state(self) -> Any:
        """The server's state after the last round."""
        return self.run.state

    @cached_property
    def vector(self) -> np.ndarray[Any, Any]:
        """The model, as a vector."""
        if not hasattr(self.run.state, "vector"):
            raise SettingError(f"{type(self.plan.algorithm).__name__} trains no model: its result is in `state`")
        return np.asarray(self.run.state.vector)

    @cached_property
    def params(self) -> dict[str, np.ndarray[Any, Any]]:
        """The model, as named arrays."""
        return self.plan.algorithm.layout.unflatten(self.vector)

    def evaluate(self, population: Population) -> Evaluation:
        """The model's metrics on a population."""
        return evaluate(self._model, self.vector, population)

    def predict(self, x: Any) -> np.ndarray[Any, Any]:
        """The model's labels, or numbers, for rows."""
        return self._model.predict(self.vector, x)

    def outputs(self, x: Any) -> np.ndarray[Any, Any]:
        """The model's scores for rows, from which predictions are made."""
        return self._model.outputs(self.vector, x)

    def save(self, path: str | Path) -> None:
        """Writes the model's named arrays as safetensors, for `load_vector` and every program that reads such files."""
        try:
            check_model_place(Path(path), self.plan)
            write_model(Path(path), self.vector, plan=self.plan, round=int(self.run.round))
        except OSError as error:
            raise CheckpointError(f"{path} could not be written: {error.strerror}") from error

    @property
    def _model(self) -> Any:
        model = getattr(self.plan.algorithm, "model", None)
        if model is None:
            raise SettingError(f"{type(self.plan.algorithm).__name__} trains no model")
        return model

    def __str__(self) -> str:
        return "\n".join(str(part) for part in (self.history, self.stopped) if part)

    def __rich__(self) -> Any:
        return Group(self.history, *([self.stopped] if self.stopped else []))


def simulate(
    plan: Plan,
    population: Population | LazyPopulation | Mapping[str, Any],
    *,
    test: Test | None = None,
    every: int = 10,
    seed: int = 0,
    start: Any = None,
    runtime: Literal["auto", "compiled", "local"] = "auto",
    secure: Literal["unmasked", "full"] | Rehearsal = "unmasked",
    availability: Availability | None = None,
    small_cohort: int | None = None,
    checkpoint: str | Path | None = None,
    save_every_s: float = 30.0,
    on_reject: Literal["count", "stop"] = "count",
    callbacks: Sequence[Callback | Function] = (),
    progress: Literal["auto", "off"] = "auto",
) -> Result:
    """Runs a plan on a population in this process.

    `test` is measured every `every` rounds and after the last. `seed` decides the first model, the cohorts and
    every other draw: the same seed twice gives the same model to the bit. `start` is a vector to begin with in
    place of a fresh model, for instance an earlier result's. `runtime` "compiled" runs JAX
    algorithms, whole cohorts in one call; "local" runs everything, one client after another; "auto" takes the
    first that can.

    A chain with a `SecureSum` adds the same integers without masks, which cancel in the sum. With `secure` "full" every
    round runs the whole protocol in the local runtime, keys, shares and masks, to the same model to the bit; with a
    `Rehearsal` clients drop out of it. Its keys come from `seed`, as all else does: a simulation protects nobody.

    A `population` may also be a dict of clients, as `Population.from_clients` takes it, or of functions that load
    them (see `LazyPopulation`). `availability` says how clients come and go; without it all are always there.

    Noise is drawn from the seed, and the history says so: `simulated`. With `small_cohort` so many clients of a round
    stand in for those that the plan's noise is for, where a population has too few: the noise is scaled down with them,
    so that it hides as much of the mean as the plan's does. What a deployment gives away is what the plan is priced at.

    With `checkpoint`, the run is saved there every `save_every_s` seconds, at the end, and at Ctrl-C, which then
    waits for the rounds of the call that runs; a second one does not. If the file exists the run goes on from
    it, to the same model to the bit.

    A contribution that is not finite, or a client that cannot be loaded, is rejected, the round goes on, and the
    history counts it; with `on_reject="stop"` it raises RejectedError, as does a secure sum that too many left.

    `callbacks` follow the run: `EarlyStop`, `SaveModel`, the logs `CsvLog`, `ParquetLog` and `TensorBoard`, or a
    function, which is called when the run is evaluated, with the rows since the last time and the run, and stops
    it by returning True or a sentence.

    Raises PlanError for a plan that cannot run here, DataError for data that does not fit, CheckpointError for
    a checkpoint of another run or one that cannot be written, DivergedError when the model itself is not finite,
    CallbackError for a callback that fails.

    >>> from shoal import models
    >>> from shoal.algorithms import FedAvg
    >>> population = Population.from_arrays([[1.0], [-1.0]], [1, 0], groups=["a", "b"])
    >>> result = simulate(Plan(FedAvg(models.logistic(1)), rounds=3), population, test=population)
    >>> result.history.rows[-1]["test accuracy"]
    1.0
    """
    every = whole(every, "evaluation is every 1 or more rounds", least=1)
    if on_reject not in ("count", "stop"):
        raise SettingError(f"on_reject is 'count' or 'stop', not {on_reject!r}")
    save_every_s = number(save_every_s, "a run is saved every 0 or more seconds", lambda v: v >= 0)
    callbacks = checked(callbacks)
    plan, noise = simulated(plan, small_cohort)
    clients, test = prepared(plan, population, test)
    key = Key.from_seed(seed)
    if availability is not None and not isinstance(availability, Availability):
        raise SettingError(f"availability is an Availability(online=..., drop_out=...), not {availability!r}")
    cohorts = Cohorts(tuple(clients), plan.sampler, key, plan.min_clients, availability)
    rehearsal = _rehearsal(plan, secure, runtime)
    runs_in = (
        _runtime(plan, clients, runtime, cohorts)
        if rehearsal is None
        else LocalRuntime(plan.algorithm, clients, cohorts, rehearsal)
    )
    saved = None
    if checkpoint is not None:
        which = identity(plan, clients, seed=seed, start=start, runtime=runs_in)
        saved = Checkpoint(Path(checkpoint), which)
        saved.prepare()
    simulation = _Simulation(plan, runs_in, test, every, on_reject, save_every_s, saved, callbacks, noise)
    return simulation.run(_begun(plan, key, start), progress)


class _Simulation:
    """One call of `simulate`: the loop around a runtime, and what it has gathered so far."""

    def __init__(
        self, plan: Plan, runtime: Runtime, test: Test | None, every: int, on_reject: str, save_every_s: float,
        checkpoint: Checkpoint | None, callbacks: Sequence[Callback | Function], noise: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._plan, self._runtime, self._test, self._every = plan, runtime, test, every
        self._on_reject, self._save_every_s, self._checkpoint = on_reject, save_every_s, checkpoint
        self._callbacks, self._noise = callbacks, noise
        self._rows: list[dict[str, Any]] = []
        self._failures: dict[str, None] = {}
        self._saved = time.monotonic()

    def run(self, run: Run[Any], progress: str) -> Result:
        """Every round that is left."""
        run = self._resumed(run)
        beginning = Beginning(self._plan, run, self._every, self._test is not None, tuple(self._rows))
        with (
            _bar(progress) as bar,
            interrupts(deferred=self._checkpoint is not None) as interrupted,
            audience(self._callbacks, beginning, self._rows) as listeners,
        ):
            task = bar.add_task("rounds", total=self._plan.rounds, completed=int(run.round))
            stopped = self._told(listeners, run)
            while stopped is None and int(run.round) < self._plan.rounds:
                run = self._advance(run, listeners)
                stopped = self._told(listeners, run)
                bar.update(task, completed=int(run.round), description=self._headline())
                if interrupted():
                    self._save(run)
                    raise KeyboardInterrupt
            self._save(run)
        return Result(self._plan, run, History(tuple(self._rows)), stopped, failures=tuple(self._failures))

    def _told(self, listeners: Audience, run: Run[Any]) -> str | None:
        """Why a callback stops the run, if one does; if one fails, the run is saved all the same."""
        try:
            return listeners.tell(self._rows, run)
        except Exception:
            self._save(run)
            raise

    def _advance(self, run: Run[Any], listeners: Audience) -> Run[Any]:
        first = int(run.round)
        stop = min(listeners.next_stop(first), first + self._every - first % self._every)
        started = time.perf_counter()
        try:
            run, records = self._runtime.advance(run, stop - first)
        except TooFewClientsError:
            self._save(run)  # those who are missing may come tomorrow
            raise
        each = (time.perf_counter() - started) / len(records)
        self._rows.extend(_row(record, each, self._noise) for record in records)
        self._refuse(records)
        reached = int(run.round)
        if not np.isfinite(getattr(run.state, "vector", 0.0)).all():
            raise DivergedError(
                f"after round {reached} the model is not finite any more, though every contribution was: the "
                "server optimizer's steps are too large, or weights are"
            )
        if self._test is not None and (reached % self._every == 0 or reached == self._plan.rounds):
            self._rows[-1] |= self._measured(run)
        if time.monotonic() - self._saved >= self._save_every_s:
            self._save(run)
        return run

    def _measured(self, run: Run[Any]) -> dict[str, float]:
        if isinstance(self._test, Population):
            algorithm: Any = self._plan.algorithm
            measured: Mapping[str, float] = measure(algorithm.model, run.state.vector, self._test).pooled
        else:
            assert self._test is not None
            measured = self._test(run.state)
            if not isinstance(measured, Mapping):
                raise SettingError(f"a test gives numbers by name, such as {{'accuracy': 0.8}}, not {measured!r}")
        return {f"test {name}": float(value) for name, value in measured.items()}

    def _refuse(self, records: list[RoundRecord]) -> None:
        for record in records:
            self._failures.update(dict.fromkeys(record.failures))
            if record.failures and self._on_reject == "stop":
                raise RejectedError(
                    f"round {record.round}: {record.failures[0]}. With on_reject='count' the run goes on without it"
                )
            if record.rejected and self._on_reject == "stop":
                raise RejectedError(
                    f"round {record.round}: the contribution of {', '.join(map(repr, record.rejected[:5]))} is not "
                    "finite (NaN or infinity in its data, or training diverged). With on_reject='count' the "
                    "run goes on without it"
                )

    def _resumed(self, run: Run[Any]) -> Run[Any]:
        loaded = None if self._checkpoint is None else self._checkpoint.load((run, self._runtime.states))
        if loaded is None:
            return run
        (run, states), self._rows = loaded
        self._runtime.restore(states)
        return run

    def _save(self, run: Run[Any]) -> None:
        if self._checkpoint is not None:
            self._checkpoint.save((run, self._runtime.states), self._rows)
        self._saved = time.monotonic()

    def _headline(self) -> str:
        row = self._rows[-1]
        loss = next((row[name] for name in ("test loss", "loss") if name in row), None)
        return "rounds" if loss is None else f"rounds  loss {loss:.4g}"


def _begun(plan: Plan, key: Key, start: Any) -> Run[Any]:
    """The run before its first round, with the model to begin with."""
    run = begin(plan.algorithm, key)
    if start is None:
        return run
    size = plan.algorithm.layout.size
    if not hasattr(run.state, "vector") or np.shape(start) != (size,):
        raise SettingError(f"a run of this plan starts with a vector of {size} numbers, not with {np.shape(start)}")
    vector = np.asarray(start, plan.algorithm.layout.dtype)
    if not np.isfinite(vector).all():
        raise SettingError("a run starts with finite numbers, and `start` holds NaN or infinity")
    return replace(run, state=replace(run.state, vector=vector))


def _rehearsal(plan: Plan, secure: Any, runtime: str) -> Rehearsal | None:
    """How clients drop out of secure sums, if these are run in full."""
    if secure == "unmasked":
        return None
    if secure != "full" and not isinstance(secure, Rehearsal):
        raise SettingError(f"secure is 'unmasked', 'full' or a Rehearsal(mask=0.1), not {secure!r}")
    aggregation = plan.algorithm.aggregation
    if not aggregation.threshold:
        raise SettingError(
            f"this plan adds with {aggregation.meeting}, and a secure sum is what runs in full: build its chain with "
            "SecureSum(threshold=...), or leave `secure` out"
        )
    if runtime not in ("auto", "local"):
        raise UnsupportedError(
            f"the whole protocol runs in the local runtime, not in {runtime!r}: leave `runtime` out, or run the same "
            "integers without masks (secure='unmasked')"
        )
    return Rehearsal() if secure == "full" else secure


def _runtime(plan: Plan, population: Any, runtime: str, cohorts: Cohorts) -> Runtime:
    algorithm = plan.algorithm
    if runtime not in ("auto", "compiled", "local"):
        raise SettingError(f"a runtime is 'auto', 'compiled' or 'local', not {runtime!r}")
    compiles = algorithm.traceable and isinstance(population, Population | LazyPopulation)
    if compiles:
        _check_hashable(algorithm)
    if runtime == "compiled" and not compiles:
        raise UnsupportedError(
            f"{type(algorithm).__name__} on this model or population is plain Python, which the compiled runtime "
            "cannot run: use runtime='local', or 'auto'"
        )
    if compiles and runtime != "local":
        return (CoresRuntime if suits(algorithm, cohorts) else CompiledRuntime)(algorithm, population, cohorts)
    if runtime == "auto" and getattr(getattr(algorithm, "model", None), "engine", None) == "torch":
        in_torch = importlib.import_module("shoal.simulation.torch")  # torch is optional, and slow to load
        if in_torch.suits(algorithm, population):
            return in_torch.TorchRuntime(algorithm, population, cohorts)
    return LocalRuntime(algorithm, population, cohorts)


def _check_hashable(algorithm: Any) -> None:
    """SettingError if compiled programs could not be found again by their algorithm."""
    try:
        hash(algorithm)
    except TypeError as error:
        raise SettingError(f"{type(algorithm).__name__} cannot be hashed ({error}): use tuples for lists") from error


def _row(record: RoundRecord, seconds: float, noise: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"round": record.round, "clients": record.clients, "rejected": len(record.rejected)}
    row |= {name: count for name, count in (("lost", record.lost), ("waited", record.waited)) if count}
    if not record.released:
        row["released"] = False
    return row | dict(record.metrics) | dict(noise) | {"seconds": seconds}


def _bar(progress: str) -> Progress:
    if progress not in ("auto", "off"):
        raise SettingError(f"progress is 'auto' or 'off', not {progress!r}")
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        disable=progress == "off" or not sys.stderr.isatty(),
    )
