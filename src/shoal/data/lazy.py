"""A population whose clients are loaded when they take part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from shoal.data.gathered import Gathered
from shoal.data.population import Population
from shoal.errors import DataError
from shoal.examples import Examples

Check = Callable[[Examples], None]
"""Raises DataError for rows that cannot be used."""


@dataclass(frozen=True, eq=False)
class LazyPopulation:
    """Clients by name, and a function that loads one: `load(name)` gives an (x, y) pair or a dict of columns.

    Nothing is loaded before a client takes part in a round, and nothing is kept after it. A client whose loading
    fails is rejected, and the round goes on without it; where nobody of the first cohort can be loaded, another
    client is, for what columns there are.

    >>> population = LazyPopulation(["a", "b"], lambda name: ([[1.0], [2.0]], [0, 1]))
    >>> population["a"].count, len(population)
    (2, 2)
    """

    names: Sequence[str]
    load: Callable[[str], Any] = field(repr=False)

    def __post_init__(self) -> None:
        names = tuple(str(name) for name in self.names)
        if not names:
            raise DataError("a population has at least one client")
        if len(set(names)) < len(names):
            raise DataError("two clients have the same name: names tell clients apart, so each needs its own")
        if not callable(self.load):
            raise DataError(f"load is a function of a client's name, not a {type(self.load).__name__}")
        object.__setattr__(self, "names", names)

    @staticmethod
    def of(clients: Mapping[str, Callable[[], Any]]) -> LazyPopulation:
        """The population of a dict of functions without arguments, one for each client."""
        named = {str(name): load for name, load in clients.items()}
        if len(named) < len(clients):
            raise DataError("two clients have the same name once it is a text: each needs its own")
        return LazyPopulation(tuple(named), lambda name: named[name]())

    def __repr__(self) -> str:
        return f"LazyPopulation of {len(self)} clients"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> Examples:
        """One client's examples, loaded now; DataError, with the client's name, if that fails."""
        if name not in self._places:
            raise DataError(f"there is no client {name!r} in this population of {len(self)}")
        return self.at(self._places[name])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    def at(self, place: int, *, check: Check = lambda rows: None) -> Examples:
        """The examples of the client at a place, loaded now; DataError, with the client's name, if that fails.

        `check` raises DataError for rows that cannot be used.
        """
        rows = self._loaded(place).at(0)
        self._check(place, rows, check)
        return rows

    def gather(self, places: Any, *, check: Check = lambda rows: None) -> Gathered:
        """The examples of the clients at some places; those that cannot be loaded, or used, are told apart.

        `check` raises DataError for rows that cannot be used.
        """
        loaded: dict[int, Population] = {}
        failed: dict[int, str] = {}
        for place in map(int, places):
            try:
                client = self._loaded(place)
                _check_like(next(iter(loaded.values()), client), client)
                self._check(place, client.everything(), check)
                loaded[place] = client
            except DataError as error:
                failed[place] = str(error)
        clients = list(loaded.values())
        names = list(clients[0].columns) if clients else []
        return Gathered(
            np.array(list(loaded), np.int64),
            {name: np.concatenate([client.columns[name] for client in clients]) for name in names},
            np.array([client.longest for client in clients], np.int64),
            np.array([client.usable[0] for client in clients], bool),
            failed,
        )

    def _check(self, place: int, rows: Examples, check: Check) -> None:
        try:
            check(rows)
        except DataError as error:
            raise DataError(f"client {self.names[place]!r}: {error}") from error

    def _loaded(self, place: int) -> Population:
        name = self.names[place]
        try:
            data = self.load(name)
        except Exception as error:
            raise DataError(
                f"client {name!r} could not be loaded: its function raised {type(error).__name__}"
            ) from error
        try:
            return Population.from_clients({name: data})
        except DataError:
            raise
        except Exception as error:  # what an object says when it is asked for its numbers
            raise DataError(
                f"client {name!r}: what its function gives could not be read as arrays ({type(error).__name__})"
            ) from error


def _check_like(first: Population, client: Population) -> None:
    """DataError if a client's columns are not those of the first one."""
    wanted = {name: column.shape[1:] for name, column in first.columns.items()}
    found = {name: column.shape[1:] for name, column in client.columns.items()}
    if wanted != found:
        raise DataError(
            f"client {client.names[0]!r} has columns {found}, client {first.names[0]!r} has {wanted}: all clients have "
            "the same"
        )
