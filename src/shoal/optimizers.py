"""Optimizers as values.

optax does the work. Its transformations are closures, which cannot be printed, compared or hashed, so a plan
holds an `Optimizer`: the name of an optax optimizer and its arguments. It becomes a transformation where it
is used, for the round it is used in; an argument may be a `Schedule` over rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optax

from shoal.errors import SettingError
from shoal.schedules import Rate, Schedule
from shoal.settings import number, settle


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
        arguments = dict(self.arguments)
        rate = arguments.get("learning_rate")
        if "learning_rate" in arguments and not isinstance(rate, Schedule):
            rule = "a learning rate is over 0 and finite, or a schedule over rounds such as shoal.schedules.cosine"
            arguments["learning_rate"] = number(rate, rule, lambda v: v > 0)
            settle(self, arguments=tuple(arguments.items()))
        for name, value in arguments.items():
            if isinstance(value, str):
                raise SettingError(f"{name} of {self.name} is a number, not {value!r}")
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


def check_optimizer(value: Any, name: str) -> None:
    """SettingError, with what to write, if a value is not an optimizer."""
    if not isinstance(value, Optimizer):
        raise SettingError(
            f"{name} is one of shoal's, such as shoal.sgd(0.1), or any of optax's by name, such as "
            f"shoal.optimizer('lion', learning_rate=0.01), not {value!r}"
        )


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
