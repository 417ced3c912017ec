"""Federated averaging, and the algorithms that differ from it in one line."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import jax
import optax

from shoal.aggregation import Aggregation, Total
from shoal.algorithms.model import Correction, Model, Training
from shoal.algorithms.protocol import Local
from shoal.algorithms.recipes import total, weighted_mean
from shoal.errors import SettingError, UnsupportedError
from shoal.examples import Examples
from shoal.key import Key
from shoal.optimizers import Optimizer, check_optimizer
from shoal.settings import number, settle
from shoal.vector import Array, Layout, Vector


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Averaged:
    """The server's state: the model, and the server optimizer's memory."""

    vector: Vector
    optimizer: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Broadcast:
    """What a client is sent: the model, and the round, on which schedules depend."""

    vector: Vector
    round: Any


@dataclass(frozen=True)
class Averaging(ABC):
    """Clients train, the server averages. Abstract: `FedAvg` and `FedProx` say how clients are held back."""

    model: Model
    epochs: int = field(default=1, kw_only=True)
    steps: int | None = field(default=None, kw_only=True)
    batch_size: int | Literal["all"] | None = field(default=None, kw_only=True)
    order: Literal["shuffled", "given"] = field(default="shuffled", kw_only=True)
    client_optimizer: Optimizer | None = field(default=None, kw_only=True)
    server_optimizer: Optimizer | None = field(default=None, kw_only=True)
    aggregation: Aggregation = field(default=None, kw_only=True)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        _check_model(self.model)
        self.model.accept(self.training)
        if self.server_optimizer is not None:
            check_optimizer(self.server_optimizer, "server_optimizer")
            self._check_statistics()
        if self.aggregation is None:  # pyright: ignore[reportUnnecessaryComparison]
            settle(self, aggregation=total() if self.model.additive else weighted_mean())
        if not isinstance(self.aggregation, Aggregation):
            raise SettingError(
                "an aggregation goes from the first step to a finish, such as weighted_mean() or "
                f"Clip(1.0) >> PlainSum() >> Mean(), not {self.aggregation!r}"
            )
        if self.model.additive:
            self._check_counts()

    def _check_statistics(self) -> None:
        statistics = getattr(self.model, "statistics", ())
        if statistics:
            raise UnsupportedError(
                "a server optimizer takes the mean change as a gradient, and running statistics are none: "
                f"{', '.join(statistics[:3])}. Leave server_optimizer out, or normalise by GroupNorm or LayerNorm"
            )

    def _check_counts(self) -> None:
        name = f"{self.model} is made of counts"
        if self.epochs != 1 or self.server_optimizer is not None:
            raise UnsupportedError(f"{name}: they are added once, without epochs and without a server optimizer")
        if not isinstance(self.aggregation.finish, Total):
            raise UnsupportedError(f"{name}, which are added and not averaged: finish with Total(), as total() does")

    @property
    def most_rounds(self) -> int | None:
        """1 for a model made of counts, which would count every example again in a second round."""
        return 1 if self.model.additive else None

    @property
    def notes(self) -> Mapping[str, int]:
        """What a client measures while it trains, by name: a sum and a count."""
        return {"loss": 2}

    @abstractmethod
    def correction(self) -> Correction | None:
        """The rule that changes a client's gradients, if there is one."""

    @cached_property
    def training(self) -> Training:
        """How a client trains."""
        return Training(self.client_optimizer, self.epochs, self.steps, self.batch_size, self.order, self.correction())

    @property
    def layout(self) -> Layout:
        """The model's."""
        return self.model.layout

    @property
    def traceable(self) -> bool:
        """As the model."""
        return self.model.traceable

    def check(self, data: Examples) -> None:
        """DataError if the model cannot learn from such examples."""
        self.model.check(data)

    def init(self, key: Key) -> Averaged:
        """The model's weights before the first round."""
        vector = self.model.init(key)
        memory = () if self.server_optimizer is None else self.server_optimizer.build(0).init(vector)
        return Averaged(vector, memory)

    def broadcast(self, state: Averaged, round: Any) -> Broadcast:
        """The model, and the round."""
        return Broadcast(state.vector, round)

    def enter(self) -> None:
        """A client keeps nothing."""
        return

    def local(self, message: Broadcast, data: Examples, client_state: None, key: Key) -> Local:
        """Trains, and hands over what changed."""
        trained = self.model.train(
            message.vector, data, training=self.training, round=message.round, key=key.split("train")
        )
        return Local(trained.update, data.count, None, trained.metrics)

    def update(self, state: Averaged, result: Vector, round: Any) -> Averaged:
        """Takes the mean update as it is, or as the gradient (times -1) of the server optimizer."""
        if self.server_optimizer is None:
            return Averaged(state.vector + result, state.optimizer)
        optimizer = self.server_optimizer.build(round)
        step, memory = optimizer.update(-result, state.optimizer, state.vector)
        return Averaged(optax.apply_updates(state.vector, step), memory)


@dataclass(frozen=True)
class FedAvg(Averaging):
    """Federated averaging (McMahan et al. 2017, algorithm 1), with any server optimizer (Reddi et al. 2021,
    algorithm 1): FedAvgM is `server_optimizer=sgd(1.0, momentum=0.9)`; FedAdam, FedYogi and FedAdagrad are
    `adam`, `yogi` and `adagrad`. Without one the mean update is added as it is.

    `epochs`, `steps`, `batch_size`, `order` and `client_optimizer` say how a client trains (see `Training`).
    The default aggregation is `weighted_mean()`, by examples.

    >>> from shoal import models
    >>> FedAvg(models.logistic(3), epochs=2, batch_size=10).training.epochs
    2
    """

    def correction(self) -> None:
        """None: clients follow their own gradients."""


@dataclass(frozen=True)
class Proximal:
    """The gradient of loss + mu/2 * ||w - w_start||^2."""

    mu: float

    def __post_init__(self) -> None:
        settle(self, mu=number(self.mu, "mu is at least 0 and finite", lambda v: v >= 0))

    def __call__(self, gradient: Array, weights: Array, start: Array) -> Array:
        """gradient + mu * (weights - start)."""
        return gradient + self.mu * (weights - start)


@dataclass(frozen=True)
class FedProx(Averaging):
    """FedAvg with a pull of strength `mu` towards the model that was sent (Li et al. 2020, algorithm 2).

    The pull keeps clients with unlike data from drifting apart; `mu` 0 is FedAvg. Everything else as in
    `FedAvg`.

    >>> from shoal import models
    >>> FedProx(models.logistic(3), mu=0.1).training.correction
    Proximal(mu=0.1)
    """

    mu: float = field(default=0.01, kw_only=True)

    def correction(self) -> Proximal:
        """The pull."""
        return Proximal(self.mu)


def _check_model(model: Any) -> None:
    if not hasattr(model, "measure") or not hasattr(model, "accept"):
        name = type(model).__name__
        wrapped = (
            f"SklearnModel({name}(...), features=..., classes=...)" if hasattr(model, "get_params") else "logistic(13)"
        )
        raise SettingError(f"a model is one of shoal.models, such as shoal.models.{wrapped}, not a {name}")
