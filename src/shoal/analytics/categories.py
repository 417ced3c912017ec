"""Counts of categories: in how many rows, and at how many clients, each code of a declared list is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Float

from shoal.aggregation import Aggregation
from shoal.algorithms.protocol import Local
from shoal.algorithms.recipes import total
from shoal.errors import DataError, SettingError
from shoal.examples import Examples
from shoal.key import Key
from shoal.settings import settle, whole
from shoal.vector import Layout, Part, Vector

Codes = Mapping[int, int | Sequence[int]]
"""The codes that features may hold, by the feature's place: a number n is for 0 to n - 1."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counts:
    """For every code of every feature, in order: the rows that hold it, and the clients that hold it at all."""

    rows: tuple[Float[np.ndarray, " codes"], ...]
    clients: tuple[Float[np.ndarray, " codes"], ...]


@dataclass(frozen=True)
class CategoryCounts:
    """One round: for each declared code of some features each client sends its number of rows, and whether it has any.

    What is none of the codes, NaN among it, is not counted. The codes are declared because clients that named their
    own would tell them: with `PlainSum` the server learns the counts of each client, with `SecureSum` only the sums.

    >>> CategoryCounts({0: 3, 4: (1, 7)}).features
    ((0, (0, 1, 2)), (4, (1, 7)))
    """

    features: Any
    column: str = field(default="x", kw_only=True)
    aggregation: Aggregation = field(default_factory=total, kw_only=True)

    def __post_init__(self) -> None:
        try:
            given = cast("Codes", dict(self.features))
        except (TypeError, ValueError):
            given = {}
        if not given:
            raise SettingError("categories are counted of at least one feature: {place of the feature: its codes}")
        rule = "a feature is named by its place, from 0"
        settle(self, features=tuple((whole(place, rule, least=0), _codes(c)) for place, c in given.items()))

    @property
    def layout(self) -> Layout:
        """Rows and clients for every code, in float64, which counts exactly up to 2**53."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        size = sum(len(codes) for _, codes in self.features)
        return Layout((Part("rows", (size,), "float64"), Part("clients", (size,), "float64")), "float64")

    @property
    def traceable(self) -> bool:
        """False: float64 is NumPy's."""
        return False

    def check(self, data: Examples) -> None:
        """DataError if the rows have no such features."""
        shape = data.rows(self.column).shape[1:]
        last = max(place for place, _ in self.features)
        if len(shape) > 1 or last >= (shape or (1,))[0]:
            raise DataError(
                f"rows of {self.column!r} have shape {shape}, and there is no feature {last} (from 0) in it"
            )

    def init(self, key: Key) -> Counts:
        """Nothing counted."""
        return self._split(np.zeros(self.layout.size))

    def broadcast(self, state: Counts, round: Any) -> None:
        """Nothing."""

    def enter(self) -> None:
        """A client keeps nothing."""

    def local(self, message: None, data: Examples, client_state: None, key: Key) -> Local:
        """The client's counts."""
        rows = data.rows(self.column)
        rows = rows.reshape(len(rows), -1)
        counts = np.concatenate(
            [(rows[:, place, None] == np.array(codes)).sum(0).astype(np.float64) for place, codes in self.features]
        )
        return Local(np.concatenate([counts, (counts > 0).astype(np.float64)]), data.count)

    def update(self, state: Counts, result: Vector, round: Any) -> Counts:
        """The counts of all clients."""
        return self._split(np.asarray(result))

    def _split(self, vector: Vector) -> Counts:
        ends = np.cumsum([len(codes) for _, codes in self.features])[:-1]
        parts = self.layout.unflatten(vector)
        return Counts(*(tuple(np.split(parts[name], ends)) for name in ("rows", "clients")))


def _codes(codes: Any) -> tuple[int, ...]:
    rule = "the codes of a feature are a number of codes, or a list of different whole numbers"
    if isinstance(codes, Integral):
        return tuple(range(whole(codes, rule, least=1)))
    if isinstance(codes, str | float) or not hasattr(codes, "__iter__"):
        raise SettingError(f"{rule}, not {codes!r}")
    settled = tuple(whole(code, rule, least=-(2**53), most=2**53) for code in codes)
    if not settled or len(set(settled)) < len(settled):
        raise SettingError(f"{rule}, not {len(settled)} of which {len(set(settled))} differ")
    return settled
