"""Clipping: the step that bounds what one client can say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import jax
import numpy as np

from shoal.aggregation.kinds import Bounded, Free, Kind
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Step
from shoal.errors import SettingError
from shoal.key import Key
from shoal.settings import number, settle
from shoal.vector import Layout, Vector, namespace, norm

# A scaled float32 vector can come out longer than asked by the roundings of its norm, its factor and its
# numbers; shrinking by this much more keeps the promise.
_SLACK = 1 - 2.0**-18
# A factor below 2**-126 has too few bits left to keep it.
_MOST, _LARGEST = 2.0**100, float(np.finfo(np.float32).max)


@dataclass(frozen=True, repr=False)
class Clip(Step[Free, Bounded]):
    """Scales a contribution down to an L2 norm of at most `norm`; shorter ones stay as they are.

    value * min(1, norm / ||value||), McMahan et al. 2018, "Learning differentially private recurrent language
    models", section 3 (flat clipping). No result is longer than `norm`, rounding included; a contribution with
    a number that is not finite, or 2**100 times as long as `norm`, becomes zeros.

    With `groups`, arrays are clipped by groups, each to norm / sqrt(number of groups) (the same, per-layer clipping): a
    group is the arrays whose names begin with its text, the first that fits, and those that fit none are one more.

    >>> from shoal.vector import Layout, Part
    >>> Clip(2.0).bound(float("inf"), Layout((Part("w", (3,)),)))
    2.0
    >>> Clip(2.0, groups=("conv",))
    Clip(norm=2.0, groups=('conv',))
    """

    norm: float
    groups: tuple[str, ...] = field(default=(), kw_only=True)
    gives: ClassVar[Kind | None] = Bounded

    def __post_init__(self) -> None:
        settle(self, norm=number(self.norm, "a clipping norm is over 0 and finite", lambda v: v > 0))
        groups: Any = self.groups
        if not (
            isinstance(groups, tuple | list) and all(isinstance(group, str) for group in cast("list[Any]", groups))
        ):
            raise SettingError(f"groups are a tuple of texts that names of arrays begin with, not {groups!r}")
        settle(self, groups=tuple(cast("list[str]", groups)))

    def __repr__(self) -> str:
        return f"Clip(norm={self.norm!r}{f', groups={self.groups!r}' if self.groups else ''})"

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Clips the value."""
        xp = namespace(update.value)
        length = norm(update.value)
        if not self.groups:
            return replace(update, value=shortened(update.value, length, limit=self.norm)), state
        value = _measurable(update.value, length, self.norm)
        groups = self._places(update.layout)
        for places in groups:
            length = norm(xp.stack([norm(value[place]) for place in places]))
            factor = _factor(length, self.norm * _SLACK / math.sqrt(len(groups)))
            for place in places:
                value = _scaled(value, place, factor)
        return replace(update, value=value), state

    def decode(self, total: Vector) -> Vector:
        """The sum as it is."""
        return total

    def bound(self, before: float, layout: Layout) -> float:
        """`norm`, or less if less was known; SettingError if a group has no array."""
        if self.groups:
            self._places(layout)
        return min(before, self.norm)

    def _places(self, layout: Layout | None) -> list[list[slice]]:
        """Where the arrays of each group are."""
        parts, offsets = (layout.parts, layout.offsets) if layout else ((), ())
        found: list[list[slice]] = [[] for _ in (*self.groups, "others")]
        for part, start in zip(parts, offsets, strict=True):
            fits = (place for place, group in enumerate(self.groups) if part.name.startswith(group))
            found[next(fits, -1)].append(slice(start, start + part.size))
        for group, places in zip(self.groups, found[:-1], strict=True):
            if not places:
                names = ", ".join(part.name for part in parts)
                raise SettingError(f"no array is left for the clipping group {group!r}: the arrays are {names}")
        return [places for places in found if places]


def shortened(value: Vector, length: Any, *, limit: float) -> Vector:
    """A value that has some length, in any norm, scaled down to a limit, rounding included.

    Zeros if the length is not finite, or over 2**100 limits.
    """
    return _measurable(value, length, limit) * _factor(length, limit * _SLACK)


def _measurable(value: Vector, length: Any, limit: float) -> Vector:
    xp = namespace(value)
    return xp.where(length <= min(limit * _MOST, _LARGEST), value, 0)  # not if it is not a number


def _factor(length: Any, limit: float) -> Any:
    """What a value of some length is multiplied by."""
    xp = namespace(length)
    factor = xp.where(length > limit, limit / xp.where(length > limit, length, 1), 1)
    return factor.astype(np.float32)


def _scaled(value: Vector, place: slice, factor: Any) -> Vector:
    """The value with the numbers at a place scaled; a NumPy array is changed itself."""
    if isinstance(value, jax.Array):
        return value.at[place].multiply(factor)
    value[place] *= factor
    return value
