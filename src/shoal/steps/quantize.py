"""Quantization: from floats to a grid of integers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from shoal.aggregation.payload import Update
from shoal.aggregation.step import Discretizes
from shoal.errors import SettingError
from shoal.key import Key
from shoal.settings import number, settle
from shoal.vector import Layout, Vector, namespace


@dataclass(frozen=True)
class Quantize(Discretizes):
    """Rounds to multiples of `step`, as 32-bit integers whose sum is exact in any order.

    `rounding` is "nearest", or "stochastic": up or down with probabilities that make the mean right, so that
    updates smaller than the step are not erased (Alistarh et al. 2017, section 3.1, on a fixed grid).

    >>> Quantize(0.5).unit
    0.5
    """

    step: float
    rounding: Literal["nearest", "stochastic"] = "nearest"

    def __post_init__(self) -> None:
        settle(self, step=number(self.step, "the step of a grid is over 0 and finite", lambda v: v > 0))
        if self.rounding not in ("nearest", "stochastic"):
            raise SettingError(f"rounding is 'nearest' or 'stochastic', not {self.rounding!r}")

    @property
    def unit(self) -> float:
        """The step."""
        return self.step

    def reach(self, entry: float) -> int:
        """Half a step more, or with stochastic rounding a whole one; and float32's own."""
        slack = 0.5 if self.rounding == "nearest" else 1.0
        return int(entry / self.step * (1 + 1e-6) + slack)

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """Integers for the value and for the weight."""
        xp = namespace(update.value)
        scaled = update.value / np.float32(self.step)
        if self.rounding == "stochastic":
            scaled = xp.floor(scaled + key.uniform(scaled))
        integers = xp.round(scaled).astype(np.int32)
        weight = xp.round(update.weight).astype(np.int32)
        return replace(update, value=integers, weight=weight, unit=self.step), state

    def decode(self, total: Vector) -> Vector:
        """Back to units of training."""
        return total.astype(np.float32) * np.float32(self.step)

    def bound(self, before: float, layout: Layout) -> float:
        """Half a step more in every coordinate, or with stochastic rounding a whole one; and float32's own."""
        slack = 0.5 if self.rounding == "nearest" else 1.0
        return before * (1 + 1e-6) + slack * self.step * math.sqrt(layout.size)
