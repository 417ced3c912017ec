"""A learning process: a federated algorithm driven from outside, one round at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from shoal.aggregation import Aggregation
from shoal.aggregation.step import Remembers
from shoal.algorithms import FedProx, Report, Run, start
from shoal.algorithms.fedavg import Averaging
from shoal.errors import SettingError, UnsupportedError
from shoal.key import Key
from shoal.learning.given import population_of
from shoal.learning.rounds import one_round
from shoal.optimizers import Optimizer
from shoal.settings import number
from shoal.simulation.evaluation import readable
from shoal.simulation.records import means
from shoal.vector import Layout


@dataclass(frozen=True, eq=False)
class State:
    """All that a process remembers between rounds; `algorithm` has the learning rates of now."""

    run: Run[Any]
    algorithm: Averaging
    key: Key

    @property
    def global_model_weights(self) -> np.ndarray[Any, Any]:
        """The model, as a vector."""
        return np.asarray(self.run.state.vector)


class Output(NamedTuple):
    """What a round gives: the state after it, and its metrics."""

    state: Any
    metrics: dict[str, Any]


@dataclass(frozen=True)
class LearningProcess:
    """Training as a process of TensorFlow Federated: `initialize`, then `next` for each round.

    The state is a value: keep one, and go on from it twice.

    >>> import shoal
    >>> process = LearningProcess(shoal.FedAvg(shoal.models.logistic(1), client_optimizer=shoal.sgd(0.5)))
    >>> state = process.initialize()
    >>> state, metrics = process.next(state, [([[1.0], [-1.0]], [1, 0]), ([[2.0]], [1])])
    >>> metrics["client_work"]["train"]["num_examples"]
    3
    """

    algorithm: Averaging

    def __post_init__(self) -> None:
        remembering = [step for step in self.algorithm.aggregation.steps if isinstance(step, Remembers)]
        if remembering:
            raise UnsupportedError(
                f"{remembering[0]} remembers each client from round to round, and a process does not know who its "
                "clients are: use shoal.simulate"
            )

    @property
    def model(self) -> Any:
        """The model that is trained: `predict(weights, x)`, `measure`, `fitted`."""
        return self.algorithm.model

    def initialize(self, seed: int = 0) -> State:
        """The state before the first round. `seed` decides the first model and every draw, as in `simulate`."""
        key = Key.from_seed(seed)
        return State(start(self.algorithm, key), self.algorithm, key)

    def next(self, state: State, clients: Any) -> Output:
        """One round: the clients train, the server updates the model.

        `clients` is a list of datasets, each an (x, y) pair or a dict of columns; a dict of them by name; or a
        `Population`. Metrics are nested by "distributor", "client_work", "aggregator" and "finalizer".

        A JAX model's round is one compiled call, one client after the other. Rows and clients are filled up to powers
        of two, so that rounds of other clients find it compiled; a larger size, or another learning rate, compiles
        it again. Data are copied to the device in every round, but for a `Population` that has been there before.
        """
        self._check(state)
        population = population_of(clients)
        readable(state.algorithm, population)
        state.algorithm.aggregation.check(self.model.layout, len(population))
        run, report = one_round(state.algorithm, state.run, population, state.key)
        finite = bool(np.isfinite(np.asarray(run.state.vector)).all())
        if not finite:
            run = replace(run, state=state.run.state, memory=state.run.memory)
        return Output(replace(state, run=run), _metrics(report, state.algorithm.aggregation, len(population), finite))

    def get_model_weights(self, state: State) -> np.ndarray[Any, Any]:
        """The model, as a vector."""
        self._check(state)
        return state.global_model_weights

    def set_model_weights(self, state: State, weights: Any) -> State:
        """The state with another model: a vector, or arrays by name as in the model's layout."""
        self._check(state)
        kept = replace(state.run.state, vector=vector_of(weights, self.model.layout))
        return replace(state, run=replace(state.run, state=kept))

    def get_hparams(self, state: State) -> dict[str, dict[str, Any]]:
        """The numbers that `set_hparams` changes: those of the client optimizer and of the server's."""
        self._check(state)
        algorithm = state.algorithm
        work = _arguments(algorithm.client_optimizer)
        if isinstance(algorithm, FedProx):
            work["proximal_strength"] = algorithm.mu
        return {"client_work": work, "finalizer": _arguments(algorithm.server_optimizer)}

    def set_hparams(self, state: State, hparams: Mapping[str, Mapping[str, Any]]) -> State:
        """The state with other numbers, in the form of `get_hparams`; what is left out stays.

        The next round is compiled again. SettingError for a name that is not there or a number out of range.
        """
        _check_known(hparams, self.get_hparams(state))
        work = {**hparams.get("client_work", {})}
        algorithm = state.algorithm
        if isinstance(algorithm, FedProx):
            algorithm = replace(algorithm, mu=work.pop("proximal_strength", algorithm.mu))
        changed = replace(
            algorithm,
            client_optimizer=_changed(algorithm.client_optimizer, work),
            server_optimizer=_changed(algorithm.server_optimizer, hparams.get("finalizer", {})),
        )
        return replace(state, algorithm=changed)

    def _check(self, state: Any) -> None:
        if not isinstance(state, State) or state.algorithm.model != self.algorithm.model:
            raise SettingError("a state is one that this process's initialize or next gave")


def vector_of(weights: Any, layout: Layout) -> np.ndarray[Any, Any]:
    """A vector of a layout from a vector or from arrays by name; SettingError if it does not fit or is not finite."""
    if isinstance(weights, Mapping):
        weights = layout.flatten({str(name): np.asarray(array) for name, array in weights.items()})
    wanted = f"weights are a vector of {layout.size} numbers, or arrays by name"
    try:
        vector = np.array(weights, layout.dtype)
    except (TypeError, ValueError) as error:
        raise SettingError(f"{wanted}, not a {type(weights).__name__} of something else") from error
    if vector.shape != (layout.size,):
        raise SettingError(f"{wanted}, not of shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise SettingError("weights are finite, and these hold NaN or infinity")
    return vector


def _metrics(report: Report, aggregation: Aggregation, clients: int, finite: bool) -> dict[str, Any]:
    seen = {name: pair[1] for name, pair in report.metrics.items()}
    counted = {"num_examples": int(seen["loss"])} if "loss" in seen else {}
    there, trained, adapting = int(report.clients), means(report.metrics), aggregation.adapting
    setting = {} if adapting is None else {adapting.setting_name: trained.pop(adapting.setting_name)}
    return {
        "distributor": (),
        "client_work": {"train": trained | counted},
        "aggregator": {"clients": there, "rejected": clients - there, "released": bool(report.released)} | setting,
        "finalizer": {"update_non_finite": int(not finite)},
    }


def _check_known(hparams: Any, known: Mapping[str, Mapping[str, Any]]) -> None:
    there = "; ".join(f"{place}: {', '.join(names) or 'none'}" for place, names in known.items())
    if not isinstance(hparams, Mapping) or not all(isinstance(given, Mapping) for given in hparams.values()):
        raise SettingError(f"hparams are numbers by name, by place, such as get_hparams gives; there are {there}")
    given = [(place, name) for place, names in hparams.items() for name in names]
    unknown = [f"{place} {name}" for place, name in given if name not in known.get(place, {})]
    if unknown:
        raise SettingError(f"there is no {', '.join(unknown)} to set; there are {there}")


def _arguments(optimizer: Optimizer | None) -> dict[str, Any]:
    if optimizer is None:
        return {}
    return {name: value for name, value in optimizer.arguments if value is not None and not isinstance(value, bool)}


def _changed(optimizer: Optimizer | None, given: Mapping[str, Any]) -> Optimizer | None:
    if optimizer is None or not given:
        return optimizer
    for name, value in given.items():
        if name != "learning_rate":
            number(value, f"{name} is a finite number", lambda v: True)
    return Optimizer(optimizer.name, tuple((dict(optimizer.arguments) | dict(given)).items()))
