"""The cohort of each round: drawn among those that are there, waited for where they are too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from shoal.cohort import Fixed, Rotation, Sampler
from shoal.errors import TooFewClientsError
from shoal.key import Key
from shoal.simulation.availability import Availability

SHOWN = 5
"""How many missing clients an error names."""


@dataclass(frozen=True)
class Cohort:
    """Who takes part in a round: ascending places; who was chosen and lost; and how often the round waited."""

    places: np.ndarray[Any, Any]
    lost: int = 0
    waited: int = 0


@dataclass(frozen=True)
class Cohorts:
    """The cohorts of a run, each a function of the run's key and the round alone."""

    names: Sequence[str]
    sampler: Sampler
    key: Key
    min_clients: int = 0
    availability: Availability | None = None

    @property
    def most(self) -> int:
        """A size that no more than one cohort in a billion exceeds."""
        return self.sampler.most(len(self.names))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def draw(self, number: int) -> Cohort:
        """The cohort of a round, counted from 0.

        TooFewClientsError if fewer than `min_clients` take part, however long the round waits.
        """
        key = self.key.split("round", number)
        if self.availability is None:
            places = self._turns(number)
            if places is None:
                places = self.sampler.draw(key.split("cohort"), len(self.names))
            if len(places) < self.min_clients:  # only random sizes can be: the plan was checked
                raise self._too_few(number, places, 1)
            return Cohort(places)
        kept = np.empty(0, np.int64)
        for check in range(self.availability.patience):
            at = key.split("check", check) if check else key
            there = self.availability.there(self.names, self._places, number + 1, check + 1, at)
            chosen = self._chosen(number, there, at.split("cohort"))
            kept = self.availability.kept(chosen, at)
            if len(kept) >= self.min_clients:
                return Cohort(kept, len(chosen) - len(kept), check)
        raise self._too_few(number, kept, self.availability.patience)

    def several(self, first: int, rounds: int) -> list[Cohort]:
        """The cohorts of some rounds from a first on; fewer of them where a later one cannot be drawn."""
        drawn = [self.draw(first)]
        for number in range(first + 1, first + rounds):
            try:
                drawn.append(self.draw(number))
            except TooFewClientsError:  # raised when its round has come: the rounds before it are run
                break
        return drawn

    def _chosen(self, number: int, there: Any, key: Key) -> Any:
        """The cohort of a round among those that are there."""
        turns = self._turns(number)
        if turns is not None:
            return np.intersect1d(turns, there)
        return there[self._among(len(there)).draw(key, len(there))] if len(there) else there

    def _turns(self, number: int) -> np.ndarray[Any, Any] | None:
        """Whose turn it is in a round, if clients take turns: nobody stands in for one that is away."""
        if not isinstance(self.sampler, Rotation):
            return None
        return self.sampler.turn(number, self.key.split("cohort"), len(self.names))

    def _among(self, there: int) -> Sampler:
        """The sampler; one of a fixed number takes everybody where fewer are there."""
        return Fixed(min(self.sampler.clients, there)) if isinstance(self.sampler, Fixed) else self.sampler

    def _too_few(self, number: int, took_part: Any, checks: int) -> TooFewClientsError:
        present = set(np.asarray(took_part).tolist())
        missing = [name for place, name in enumerate(self.names) if place not in present]
        others = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        looked = f"after looking {checks} times" if checks > 1 else "in its cohort"
        return TooFewClientsError(
            f"round {number + 1} needs at least {self.min_clients} clients and had {len(present)} {looked}; missing: "
            f"{', '.join(map(repr, missing[:SHOWN]))}{others}. Wait longer (patience=...), or ask for fewer "
            "(min_clients=...)"
        )
