"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Num

from shoal.aggregation.finish import Robust
from shoal.aggregation.kinds import Free, Kind
from shoal.vector import Array, Vector, namespace


@dataclass(frozen=True)
class Median(Robust):
    """The median of every coordinate over the clients; between the middle two if they are even in number.

    Yin et al. 2018, "Byzantine-robust distributed learning", definition 1. Weights do not count.

    >>> from shoal.aggregation import Collect
    >>> print(Collect() >> Median())
    Collect() >> Median()
    """

    takes: ClassVar[tuple[Kind, ...]] = (Free,)

    def combine(self, values: Num[Array, "payloads size"], present: Bool[Array, " payloads"]) -> Vector:
        """The median of the rows that are present."""
        xp = namespace(values)
        ordered = xp.sort(xp.where(present[:, None], values, np.inf), axis=0)
        count = xp.sum(present)
        low = xp.take(ordered, xp.maximum(count - 1, 0) // 2, axis=0)
        high = xp.take(ordered, count // 2 % values.shape[0], axis=0)
        return ((low + high) * 0.5).astype(values.dtype)
