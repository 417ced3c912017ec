"""Clients where compiled code can read them: columns on the device, clients as four arrays.

A population in memory is placed on the device once, and stays there. One that is memory-mapped, or whose clients
are loaded by functions, is not: each cohort is gathered when it is needed, the next one while a round computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from shoal.data import Gathered, LazyPopulation, Population
from shoal.errors import DataError
from shoal.examples import Examples
from shoal.key import Key, name_words
from shoal.turns import filled, readable_column

Array = np.ndarray[Any, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Columns:
    """The columns of some clients, with where each client's rows begin, how many they are, whether they can be
    used, and the words of its name (see `shoal.key`)."""

    columns: dict[str, Any]
    start: Any
    count: Any
    usable: Any
    name: Key
    longest: int = field(metadata={"static": True})

    def at(self, place: Any) -> Examples:
        """The examples of the client at a place, which may be traced."""
        return Examples(self.columns, self.start[place], self.count[place], self.usable[place], self.longest)


@dataclass(frozen=True)
class Taken:
    """Clients ready for a round: columns, the clients' places in these, and those in the population.

    `failed` says of clients that could not be loaded, by place in the population, what went wrong.
    """

    columns: Columns
    local: Array
    places: Array
    failed: Mapping[int, str] = field(default_factory=dict)


KEPT_BYTES = 10**9
"""Columns on disk may stay in memory up to this size, where they are read fastest."""
KEPT_ROUNDS = 16
"""Of larger ones, the pages that so many rounds have read are given back."""
TRIED = 16
"""Where nobody of the first cohort can be loaded, so many others are, to know what columns there are."""


class Source(Protocol):
    """Where the rounds' clients come from."""

    def take(self, places: Array) -> Taken:
        """The clients at some places of the population."""
        ...

    def expect(self, places: Array) -> None:
        """Brings together the clients of a round to come: called while another computes."""
        ...


def source(population: Population | LazyPopulation, check: Callable[[Examples], None]) -> Source:
    """The source for a population: on the device if it is in memory, gathered if not.

    `check` raises DataError for rows that cannot be used; clients that are loaded later are checked then.
    """
    if isinstance(population, LazyPopulation):
        return Gathering(_words(population), partial(population.gather, check=check), 1, _nothing)
    if population.mapped:
        large = sum(column.nbytes for column in population.columns.values()) > KEPT_BYTES
        if large:
            population.read_sparsely()
        let_go = population.let_go if large else _nothing
        return Gathering(_words(population), population.gather, population.longest, let_go)
    return Resident(on_device(population))


@dataclass(frozen=True)
class Resident:
    """A population that is on the device as a whole."""

    columns: Columns

    def take(self, places: Array) -> Taken:
        """The population, and the places."""
        return Taken(self.columns, places, places)

    def expect(self, places: Array) -> None:
        """Nothing is to be done."""


class Gathering:
    """A population of which each round's clients are brought together.

    Arrays only grow, in steps of a fifth, and are filled up with zeros: a compiled call is made anew for every size.
    """

    def __init__(
        self,
        words: Array,
        gather: Callable[[Array], Gathered],
        longest: int,
        let_go: Callable[[], None],
    ) -> None:
        self._words, self._gather, self._let_go = words, gather, let_go
        self._takes = 0
        self._rows, self._clients, self._longest = 1, 1, longest
        self._shapes: dict[str, Any] = {}
        self._coming: tuple[bytes, Taken] | None = None

    def take(self, places: Array) -> Taken:
        """The clients, gathered now or as expected."""
        coming, self._coming = self._coming, None
        if coming is not None and coming[0] == places.tobytes():
            return coming[1]
        return self._taken(places)

    def expect(self, places: Array) -> None:
        """Gathers, in the thread that simulates: the call that it waits for computes in others."""
        self._coming = places.tobytes(), self._taken(places)

    def _taken(self, places: Array) -> Taken:
        gathered = self._gather(places)
        self._takes += 1
        if self._takes % KEPT_ROUNDS == 0:
            self._let_go()
        columns = dict(gathered.columns) or self._without_rows(gathered.failed)
        self._shapes = {name: column[:0] for name, column in columns.items()}
        self._longest = _grown(self._longest, int(gathered.counts.max(initial=1)))
        self._rows = _grown(self._rows, max(int(gathered.counts.sum()), self._longest))  # a batch is a window of rows
        self._clients = _grown(self._clients, max(len(gathered.counts), 1))
        return Taken(self._placed(columns, gathered), np.arange(len(gathered.counts)), gathered.places, gathered.failed)

    def _without_rows(self, failed: Mapping[int, str]) -> dict[str, Array]:
        """The columns of a cohort that has no rows: as of those before it, or of another client that can be loaded."""
        reasons = list(failed.values())
        others = (place for place in range(len(self._words)) if place not in failed)
        for place in itertools.islice(others, 0 if self._shapes else TRIED):
            found = self._gather(np.array([place]))
            reasons.extend(found.failed.values())
            if found.columns:
                return {name: column[:0] for name, column in found.columns.items()}
        if not self._shapes:
            raise DataError(f"no client of the first cohort could be loaded, and none of the others: {reasons[0]}")
        return dict(self._shapes)

    def _placed(self, columns: dict[str, Array], gathered: Gathered) -> Columns:
        counts = gathered.counts
        usable = gathered.usable
        for name, column in columns.items():
            cast = readable_column(name, column)
            if cast is not column:
                usable = usable & _usable(cast, counts)  # float32 has infinities where float64 has numbers
                columns[name] = cast
        words = self._words[gathered.places]
        return Columns(
            {name: jnp.asarray(filled(column, self._rows)) for name, column in columns.items()},
            filled((np.cumsum(counts) - counts).astype(np.int32), self._clients),
            filled(counts.astype(np.int32), self._clients),
            filled(usable, self._clients),
            Key(filled(words[:, 0], self._clients), filled(words[:, 1], self._clients)),
            self._longest,
        )


def _nothing() -> None:
    """Keeps what was read."""


def _grown(size: int, wanted: int) -> int:
    return size if wanted <= size else max(wanted, size + size // 5)


def _usable(column: Array, counts: Array) -> Array:
    """Which clients hold neither NaN nor infinity, from their rows one after the other."""
    bad = ~np.isfinite(column).all(axis=tuple(range(1, column.ndim))) if column.dtype.kind == "f" else None
    if bad is None or not bad.any():
        return np.ones(len(counts), bool)
    return ~np.logical_or.reduceat(bad, np.cumsum(counts) - counts)


def _words(population: Population | LazyPopulation) -> Array:
    """The words of the clients' names, (clients, 2): for a million of them a second's work, done once."""
    if population not in _WORDS:
        every = itertools.chain.from_iterable(map(name_words, population.names))
        _WORDS[population] = np.fromiter(every, np.uint32, 2 * len(population)).reshape(-1, 2)
    return _WORDS[population]


_WORDS: WeakKeyDictionary[Population | LazyPopulation, Array] = WeakKeyDictionary()


def on_device(population: Population) -> Columns:
    """A population on the device.

    It stays there as long as the population lives, so the next simulation of it starts at once.
    """
    if population not in _ON_DEVICE:
        _ON_DEVICE[population] = _placed(population)
    return _ON_DEVICE[population]


_ON_DEVICE: WeakKeyDictionary[Population, Columns] = WeakKeyDictionary()


def _placed(population: Population) -> Columns:
    if int(population.offsets[-1]) >= 2**31:
        raise DataError("a simulation in memory holds fewer than 2**31 examples: save it with shoal.save_population")
    words = _words(population)
    readable = population
    for name, column in population.columns.items():
        cast = readable_column(name, column)
        if cast is not column:
            readable = readable.with_column(name, cast)  # float32 has infinities where float64 has numbers
    return Columns(
        {name: jnp.asarray(column) for name, column in readable.columns.items()},
        jnp.asarray(population.offsets[:-1], jnp.int32),
        jnp.asarray(population.counts, jnp.int32),
        jnp.asarray(readable.usable),
        Key(jnp.asarray(words[:, 0]), jnp.asarray(words[:, 1])),
        population.longest,
    )
