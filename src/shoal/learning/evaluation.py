"""Evaluation as a process: the model is measured where the data are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shoal.algorithms import FedEval, Model, start
from shoal.errors import SettingError
from shoal.key import Key
from shoal.learning.given import population_of
from shoal.learning.process import Output, vector_of
from shoal.simulation.evaluation import measure, readable
from shoal.simulation.records import means


@dataclass(frozen=True, eq=False)
class EvaluationState:
    """The model that is measured, and the sums and counts of every metric over the rounds so far."""

    vector: Any
    totals: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    @property
    def global_model_weights(self) -> np.ndarray[Any, Any]:
        """The model, as a vector."""
        return np.asarray(self.vector)


@dataclass(frozen=True)
class EvaluationProcess:
    """Federated evaluation as a process of TensorFlow Federated: each client sends sums over its examples.

    >>> import shoal
    >>> process = EvaluationProcess(shoal.models.logistic(1))
    >>> state = process.set_model_weights(process.initialize(), [0.0, 1.0])
    >>> metrics = process.next(state, [([[1.0], [-1.0]], [1, 0]), ([[2.0]], [0])]).metrics
    >>> round(metrics["client_work"]["eval"]["current_round_metrics"]["accuracy"], 4)
    0.6667
    """

    model: Model

    def initialize(self, seed: int = 0) -> EvaluationState:
        """A fresh model, as the same seed gives it in training; nothing is measured yet."""
        return EvaluationState(np.asarray(start(FedEval(self.model), Key.from_seed(seed)).state.vector))

    def next(self, state: EvaluationState, clients: Any) -> Output:
        """Measures the model on the clients, given as to a `LearningProcess`; the model stays as it is.

        "current_round_metrics" are the means over these clients' examples, "total_rounds_metrics" those over the
        examples of all rounds so far. All clients are measured at once: sums over their examples, which is what they
        would send, are the same in any order.
        """
        self._check(state)
        usable, rejected = readable(self.model, population_of(clients))
        count = float(usable.offsets[-1])
        pooled = measure(self.model, state.vector, usable).pooled
        now = {name: np.array([mean * count, count]) for name, mean in pooled.items()}
        totals = {name: pair + state.totals.get(name, 0) for name, pair in now.items()}
        measured = {"current_round_metrics": _finished(now), "total_rounds_metrics": _finished(totals)}
        return Output(replace(state, totals=totals), {
            "distributor": (),
            "client_work": {"eval": measured},
            "aggregator": {"clients": len(usable), "rejected": len(rejected)},
            "finalizer": (),
        })  # fmt: skip

    def get_model_weights(self, state: EvaluationState) -> np.ndarray[Any, Any]:
        """The model, as a vector."""
        self._check(state)
        return state.global_model_weights

    def set_model_weights(self, state: EvaluationState, weights: Any) -> EvaluationState:
        """The state with another model, a vector or arrays by name."""
        self._check(state)
        return replace(state, vector=vector_of(weights, self.model.layout))

    def _check(self, state: Any) -> None:
        if not isinstance(state, EvaluationState) or np.shape(state.vector) != (self.model.layout.size,):
            raise SettingError("a state is one that this process's initialize or next gave")


def _finished(sums: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    """Means, and the number of examples, which all metrics have in common."""
    return means(sums) | {"num_examples": int(max((pair[1] for pair in sums.values()), default=0))}
