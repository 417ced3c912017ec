"""Schedules over rounds, as values: a learning rate that falls while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optax

from shoal.settings import number, whole


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

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' for k, v in self.arguments)})"


Rate = float | Schedule
"""A number, or a schedule over rounds."""


def cosine(start: float, *, rounds: int, final: float = 0.0) -> Schedule:
    """From `start` to `final` along half a cosine (Loshchilov and Hutter 2017, equation 5)."""
    arguments = (("init_value", _rate(start)), ("decay_steps", _rounds(rounds)), ("alpha", _final(final) / start))
    return Schedule("cosine_decay_schedule", arguments)


def linear(start: float, *, rounds: int, final: float = 0.0) -> Schedule:
    """From `start` to `final` in a straight line.

    >>> float(linear(1.0, rounds=10).at(5))
    0.5
    """
    arguments = (("init_value", _rate(start)), ("end_value", _final(final)), ("transition_steps", _rounds(rounds)))
    return Schedule("linear_schedule", arguments)


def exponential(start: float, *, decay: float, every: int = 1) -> Schedule:
    """`start` times `decay` ** (round / `every`).

    >>> round(float(exponential(1.0, decay=0.5).at(2)), 6)
    0.25
    """
    arguments = (("init_value", _rate(start)), ("transition_steps", _rounds(every)), ("decay_rate", _rate(decay)))
    return Schedule("exponential_decay", arguments)


def piecewise(start: float, *, factors: dict[int, float]) -> Schedule:
    """`start`, multiplied by each factor from the round of its key on.

    >>> rate = piecewise(1.0, factors={10: 0.1})
    >>> [round(float(rate.at(r)), 6) for r in (9, 10)]
    [1.0, 0.1]
    """
    arguments = (("init_value", _rate(start)), ("boundaries_and_scales", tuple(sorted(factors.items()))))
    return Schedule("piecewise_constant_schedule", arguments)


def _final(final: Any) -> float:
    return number(final, "a schedule ends at 0 or more", lambda v: v >= 0)


def _rate(start: Any) -> float:
    return number(start, "a schedule starts over 0 and finite", lambda v: v > 0)


def _rounds(rounds: Any) -> int:
    return whole(rounds, "a schedule takes at least one round", least=1)
