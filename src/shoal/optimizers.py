"""Optimizers and schedules as values.

optax does the work. Its transformations are closures, which cannot be printed, compared or hashed, so a plan
holds an `Optimizer`: the name of an optax optimizer and its arguments. It becomes a transformation where it
is used, for the round it is used in; an argument may be a `Schedule` over rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optax

from shoal.errors import SettingError


@dataclass(frozen=True)
class Schedule:
    """A number that depends on the round, by an optax schedule.

    >>> round(float(cosine(0.1, rounds=100).at(50)), 6)
    0.05
    """

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def at(self, round: Any) -> Any:
        """The value in a round, which may be traced."""
        arguments = {k: dict(v) if isinstance(v, tuple) else v for k, v in self.arguments}
        return getattr(optax.schedules, self.name)(**arguments)(round)


Rate = float | Schedule
"""A number, or a schedule over rounds."""


@dataclass(frozen=True)
class Optimizer:
    """An optax optimizer by name, with its arguments.

    >>> print(sgd(0.1, momentum=0.9))
    sgd(learning_rate=0.1, momentum=0.9, nesterov=False)
    """

    name: str
    arguments: tuple[tuple[str, Any], ...]

    def __post_init__(self) -> None:
        if not callable(getattr(optax, self.name, None)):
            raise SettingError(f"optax has no optimizer named {self.name}")
        rate = dict(self.arguments).get("learning_rate")
        if isinstance(rate, int | float) and not rate > 0:
            raise SettingError(f"a learning rate is over 0, not {rate}")
        self.build(0)

    def build(self, round: Any) -> optax.GradientTransformation:
        """The transformation for a round, which may be traced."""
        arguments = {k: v.at(round) if isinstance(v, Schedule) else v for k, v in self.arguments}
        try:
            return getattr(optax, self.name)(**arguments)
        except TypeError as error:
            raise SettingError(f"optax.{self.name}: {error}") from error

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.arguments)})"


def optimizer(name: str, **arguments: Any) -> Optimizer:
    """Any optimizer of optax by its name.

    >>> print(optimizer("lion", learning_rate=0.01))
    lion(learning_rate=0.01)
    """
    return Optimizer(name, tuple(arguments.items()))


def sgd(learning_rate: Rate, *, momentum: float | None = None, nesterov: bool = False) -> Optimizer:
    """Gradient descent: x <- x - learning_rate * g, or with momentum m <- momentum * m + g in g's place."""
    if momentum is None:
        return optimizer("sgd", learning_rate=learning_rate)
    return optimizer("sgd", learning_rate=learning_rate, momentum=momentum, nesterov=nesterov)


def adam(learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Optimizer:
    """Adam with bias correction (Kingma and Ba 2015, algorithm 1)."""
    return optimizer("adam", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)


def yogi(learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3) -> Optimizer:
    """Yogi (Zaheer et al. 2018, algorithm 2), with optax's bias correction."""
    return optimizer("yogi", learning_rate=learning_rate, b1=b1, b2=b2, eps=eps)


def adagrad(learning_rate: Rate, *, initial_accumulator_value: float = 0.1, eps: float = 1e-7) -> Optimizer:
    """Adagrad (Duchi, Hazan and Singer 2011)."""
    return optimizer(
        "adagrad", learning_rate=learning_rate, initial_accumulator_value=initial_accumulator_value, eps=eps
    )


def cosine(start: float, *, rounds: int, final: float = 0.0) -> Schedule:
    """From `start` to `final` along half a cosine (Loshchilov and Hutter 2017, equation 5)."""
    arguments = (("init_value", start), ("decay_steps", rounds), ("alpha", final / start))
    return Schedule("cosine_decay_schedule", arguments)


def linear(start: float, *, rounds: int, final: float = 0.0) -> Schedule:
    """From `start` to `final` in a straight line.

    >>> float(linear(1.0, rounds=10).at(5))
    0.5
    """
    arguments = (("init_value", start), ("end_value", final), ("transition_steps", rounds))
    return Schedule("linear_schedule", arguments)


def exponential(start: float, *, decay: float, every: int = 1) -> Schedule:
    """`start` times `decay` ** (round / `every`).

    >>> round(float(exponential(1.0, decay=0.5).at(2)), 6)
    0.25
    """
    arguments = (("init_value", start), ("transition_steps", every), ("decay_rate", decay))
    return Schedule("exponential_decay", arguments)


def piecewise(start: float, *, factors: dict[int, float]) -> Schedule:
    """`start`, multiplied by each factor from the round of its key on.

    >>> rate = piecewise(1.0, factors={10: 0.1})
    >>> [round(float(rate.at(r)), 6) for r in (9, 10)]
    [1.0, 0.1]
    """
    arguments = (("init_value", start), ("boundaries_and_scales", tuple(sorted(factors.items()))))
    return Schedule("piecewise_constant_schedule", arguments)
