"""Who is there: clients that come and go in a simulation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.errors import SettingError
from shoal.key import Key
from shoal.settings import number, settle, whole

Column = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Availability:
    """How clients come and go.

    `online` is the probability that a client is there when a round looks for its cohort, or a function
    `online(round, check)` that gives the names of those that are (rounds from 1, checks of one round from 1). A
    client that was chosen is lost with probability `drop_out` before its contribution arrives. Where fewer than
    the plan's `min_clients` are left, the round waits and looks again, at most `patience` times.

    >>> Availability(online=0.8, drop_out=0.1)
    Availability(online=0.8, drop_out=0.1, patience=100)
    """

    online: float | Callable[[int, int], Collection[str]] = 1.0
    drop_out: float = 0.0
    patience: int = 100

    def __post_init__(self) -> None:
        if not callable(self.online):
            rule = "online is a probability over 0 and at most 1, or a function online(round, check) that gives names"
            settle(self, online=number(self.online, rule, lambda v: 0 < v <= 1))
        settle(
            self,
            drop_out=number(self.drop_out, "drop_out is a probability of at least 0 and under 1", lambda v: 0 <= v < 1),
            patience=whole(self.patience, "a round looks for clients at least once", least=1),
        )

    def there(self, names: Sequence[str], places: dict[str, int], round: int, check: int, key: Key) -> Column:
        """Ascending places of the clients that are there at a check of a round."""
        if not callable(self.online):
            return np.flatnonzero(key.split("online").generator().random(len(names)) < self.online)
        given = self.online(round, check)
        if isinstance(given, str) or not isinstance(given, Collection):
            raise SettingError(f"online(round, check) gives the names of clients, not a {type(given).__name__}")
        unknown = [name for name in given if name not in places]
        if unknown:
            raise SettingError(f"online({round}, {check}) names {unknown[0]!r}, which is no client of the population")
        return np.array(sorted({places[name] for name in given}), np.int64)

    def kept(self, chosen: Column, key: Key) -> Column:
        """Those of the chosen clients that are not lost before their contribution arrives."""
        return chosen[key.split("drop-out").generator().random(len(chosen)) >= self.drop_out]
