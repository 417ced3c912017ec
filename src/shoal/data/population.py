"""A population: every client's examples in a few columns, a client's rows together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from shoal.data.gathered import Gathered
from shoal.data.mapped import let_go, memory_map, read_sparsely
from shoal.errors import DataError, SettingError
from shoal.examples import Examples
from shoal.frames import Categories, chosen, features_of, names_of, numbers_of, values_of
from shoal.key import Key
from shoal.settings import number

Column = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Population:
    """All clients with their data, columnar: client i has rows offsets[i] to offsets[i + 1] of every column.

    Made by `from_arrays`, `from_clients` or `from_frame`, which copy; a change is another population. Columns
    are read-only, and shared with the populations that are made from this one, wherever rows keep their order.

    >>> population = Population.from_arrays([[1.0], [2.0], [3.0]], [0, 1, 1], groups=["b", "a", "b"])
    >>> population
    Population of 2 clients, 3 examples (1 to 2 each): x float64 (1,), y int64
    >>> population["b"].rows("y")
    array([0, 1])
    """

    names: tuple[str, ...]
    columns: Mapping[str, Column]
    offsets: Int[np.ndarray, " clients+1"]

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("a population has at least one client")
        if len(set(self.names)) < len(self.names):
            raise DataError("two clients have the same name: names tell clients apart, so each needs its own")
        for column in self.columns.values():
            column.setflags(write=False)

    @staticmethod
    def from_arrays(x: Any, y: Any = None, *, groups: Sequence[Hashable] | Column, **columns: Any) -> Population:
        """A population from rows with a label each: `groups` says whose row it is. Clients are ordered by name.

        `y` and further columns are optional. DataError if the lengths differ.
        """
        given = {"x": x} | ({} if y is None else {"y": y}) | columns
        arrays = {name: _column(name, column) for name, column in given.items()}
        labels = _group_labels(groups)
        for name, array in arrays.items():
            if len(array) != len(labels):
                raise DataError(f"column {name!r} has {len(array)} rows, but there are {len(labels)} group labels")
        try:
            values, owners = np.unique(labels, return_inverse=True)
        except TypeError as error:
            raise DataError("group labels are of one type, all texts or all numbers, so that they sort") from error
        order = np.argsort(owners, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            arrays = {name: array[order] for name, array in arrays.items()}
        return Population(tuple(str(v) for v in values), arrays, _offsets(np.bincount(owners)))

    @staticmethod
    def from_clients(clients: Mapping[str, Any]) -> Population:
        """A population from a dict of clients: each an (x, y) pair, or a dict of columns.

        DataError, with the client's name, if one is empty or its columns differ from the others'.
        """
        if not isinstance(clients, Mapping) or not clients:
            raise DataError("a population has at least one client, in a dict of clients with the data of each")
        split = {str(name): _client_columns(str(name), data) for name, data in clients.items()}
        if len(split) < len(clients):
            raise DataError("two clients have the same name once it is a text: each needs its own")
        first = next(iter(split))
        for name, columns in split.items():
            _check_alike(first, split[first], name, columns)
        columns = {c: np.concatenate([columns[c] for columns in split.values()]) for c in split[first]}
        counts = [len(next(iter(columns.values()))) for columns in split.values()]
        return Population(tuple(split), columns, _offsets(counts))

    @staticmethod
    def from_frame(
        frame: Any,
        *,
        client: str,
        label: str | None = None,
        features: Sequence[str] | None = None,
        categories: Categories | None = None,
    ) -> Population:
        """A population from a data frame of pandas or Polars, or a pyarrow Table: one column says whose row it is.

        `label` names the column that becomes `y`. `features` are the other columns unless named; they become `x`, in
        order. A text column becomes numbers by `categories`, which has the texts that it may hold: the number is
        the place of the text. DataError if a column is missing or is not numeric.
        """
        categories = {} if categories is None else categories
        present = names_of(frame)
        features = chosen(present, client=client, label=label, features=features, categories=categories)
        x = features_of(frame, features, categories)
        y = None if label is None else numbers_of(frame, label, categories)
        return Population.from_arrays(x, y, groups=values_of(frame, client))

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name} {c.dtype}{' ' + str(c.shape[1:]) if c.ndim > 1 else ''}" for name, c in self.columns.items()
        )
        low, high = self.counts.min(), self.counts.max()
        return f"Population of {len(self)} clients, {self.offsets[-1]} examples ({low} to {high} each): {shapes}"

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __getitem__(self, name: str) -> Examples:
        """One client's examples."""
        if name not in self._places:
            raise DataError(f"there is no client {name!r} in this population of {len(self)}")
        return self.at(self._places[name])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def counts(self) -> Int[np.ndarray, " clients"]:
        """How many examples each client has."""
        return np.diff(self.offsets)

    @cached_property
    def longest(self) -> int:
        """How many examples the largest client has."""
        return int(self.counts.max())

    @cached_property
    def usable(self) -> Bool[np.ndarray, " clients"]:
        """Which clients hold neither NaN nor infinity."""
        bad = np.zeros(self.offsets[-1] + 1, np.int64)
        for column in self.columns.values():
            if np.issubdtype(column.dtype, np.inexact):
                bad[1:] += ~np.isfinite(column.reshape(len(column), -1)).all(axis=1)
        return np.diff(np.cumsum(bad)[self.offsets]) == 0

    def at(self, place: int) -> Examples:
        """The examples of the client at a place, from 0."""
        start, end = int(self.offsets[place]), int(self.offsets[place + 1])
        return Examples(self.columns, start, end - start, bool(self.usable[place]), self.longest)

    @property
    def mapped(self) -> bool:
        """Whether the columns lie on disk, and only what is read comes into memory."""
        return any(memory_map(column) is not None for column in self.columns.values())

    def read_sparsely(self) -> None:
        """Prepares columns on disk for `gather`, again and again."""
        for column in self.columns.values():
            read_sparsely(column)

    def let_go(self) -> None:
        """Gives back the memory into which columns on disk were read."""
        for column in self.columns.values():
            let_go(column)

    def gather(self, places: Any) -> Gathered:
        """The examples of the clients at some places, copied."""
        places = np.asarray(places, np.int64)
        if self._each:  # all rows of a client in one copy, not one row after the other
            taken = {name: np.take(column, places, axis=0) for name, column in self._by_client.items()}
            columns = {name: column.reshape(-1, *column.shape[2:]) for name, column in taken.items()}
        else:
            rows = self._rows(places)
            columns = {name: np.take(np.asarray(column), rows, axis=0) for name, column in self.columns.items()}
        return Gathered(places, columns, self.counts[places], self.usable[places])

    @cached_property
    def _each(self) -> int:
        """How many examples every client has; 0 if they do not all have equally many."""
        return self.longest if self.counts.min() == self.longest else 0

    @cached_property
    def _by_client(self) -> dict[str, Column]:
        """The columns of a population of equal clients, a client a row."""
        shapes = {name: (len(self), self._each, *column.shape[1:]) for name, column in self.columns.items()}
        return {name: np.asarray(column).reshape(shapes[name]) for name, column in self.columns.items()}

    def _rows(self, places: Column) -> Column:
        """The rows of the clients at some places, one client after the other."""
        counts = self.counts[places]
        before = np.cumsum(counts) - counts
        return np.repeat(self.offsets[places] - before, counts) + np.arange(counts.sum())

    def everything(self) -> Examples:
        """All rows as if they were one client's: for checks, and for a pooled reference."""
        total = int(self.offsets[-1])
        return Examples(self.columns, 0, total, bool(self.usable.all()), total)

    def pooled(self, name: str = "pooled") -> Population:
        """A population whose only client has all the rows."""
        return Population((name,), self.columns, self.offsets[[0, -1]])

    def select(self, names: Sequence[str]) -> Population:
        """The population of the named clients only, in the order given."""
        if not len(names):
            raise DataError("a population has at least one client, and none is selected")
        for name in names:
            if name not in self._places:
                raise DataError(f"there is no client {name!r} in this population of {len(self)}")
        places = np.array([self._places[name] for name in names])
        return self._taken(tuple(names), self._rows(places), self.counts[places])

    def without(self, name: str) -> Population:
        """The population without one client."""
        self[name]
        return self.select([other for other in self.names if other != name])

    def split_clients(self, fraction: float, *, seed: int = 0) -> tuple[Population, Population]:
        """Two populations of different clients; the second has that fraction of them, drawn at random."""
        held = _share(fraction, len(self), "clients")
        chosen = set(Key.from_seed(seed).split("split clients").generator().permutation(len(self))[:held].tolist())
        return (
            self.select([n for i, n in enumerate(self.names) if i not in chosen]),
            self.select([n for i, n in enumerate(self.names) if i in chosen]),
        )

    def split_examples(self, fraction: float, *, seed: int = 0) -> tuple[Population, Population]:
        """Two populations of the same clients; the second has that fraction of each one's examples, at random.

        A client with a single example keeps it in the first and is not in the second.
        """
        _share(fraction, 2, "examples")
        key = Key.from_seed(seed).split("split examples")
        kept: list[Column] = []
        held: list[Column] = []
        for name, start, count in zip(self.names, self.offsets, self.counts, strict=False):
            order = start + key.split(name).generator().permutation(int(count))
            cut = min(max(round(fraction * int(count)), 1), int(count) - 1)
            held.append(np.sort(order[:cut]))
            kept.append(np.sort(order[cut:]))
        tested = [place for place, rows in enumerate(held) if len(rows)]
        if not tested:
            raise SettingError("every client has a single example, so there is nothing to hold out")
        return (
            self._taken(self.names, np.concatenate(kept), [len(rows) for rows in kept]),
            self._taken(
                tuple(self.names[place] for place in tested),
                np.concatenate(held),
                [len(held[place]) for place in tested],
            ),
        )

    def with_column(self, name: str, column: Any) -> Population:
        """The population with a column added or replaced; it has a row for every row there is."""
        array = _column(name, column)
        if len(array) != self.offsets[-1]:
            raise DataError(f"column {name!r} has {len(array)} rows, the population has {self.offsets[-1]}")
        return Population(self.names, {**self.columns, name: array}, self.offsets)

    def map_clients(self, column: str, function: Callable[[Column], Column]) -> Population:
        """The population with a column replaced, client by client, by a function of the client's rows."""
        parts = [_column(column, function(self[name].rows(column))) for name in self.names]
        for name, part, count in zip(self.names, parts, self.counts, strict=True):
            if len(part) != count or part.shape[1:] != parts[0].shape[1:]:
                raise DataError(
                    f"client {name!r}: the function gives {part.shape} for {count} rows; each row becomes one row, "
                    f"of shape {parts[0].shape[1:]} as at client {self.names[0]!r}"
                )
        return self.with_column(column, np.concatenate(parts))

    def _taken(self, names: tuple[str, ...], rows: Column, counts: Any) -> Population:
        return Population(names, {n: c[rows] for n, c in self.columns.items()}, _offsets(counts))


def _column(name: str, values: Any) -> Column:
    try:
        column = np.array(values, order="C")
    except ValueError as error:
        raise DataError(f"column {name!r} is ragged: every row has the same shape") from error
    if column.dtype.kind not in "biuf":
        raise DataError(f"column {name!r} holds {column.dtype}, and columns hold numbers: encode it first")
    if column.ndim == 0:
        raise DataError(f"column {name!r} is a single value; a column has a row for every example")
    return column


def _group_labels(groups: Any) -> Column:
    try:
        labels = np.asarray(groups)
    except ValueError as error:
        raise DataError("groups is one label for each row, and these are of different lengths") from error
    if labels.ndim != 1:
        raise DataError(f"groups is one label for each row, and these have shape {labels.shape}")
    if any(map(_is_missing, labels if labels.dtype.kind in "mM" else groups)):
        raise DataError("a group label is missing: every row needs one, so that it belongs to a client")
    return labels


def _is_missing(label: Any) -> bool:
    """None, NaN, NaT, and pandas' NA, whose comparison is neither true nor false."""
    if label is None:
        return True
    try:
        return bool(label != label)
    except TypeError:
        return True


def _client_columns(client: str, data: Any) -> dict[str, Column]:
    if not isinstance(data, Mapping):
        if not isinstance(data, tuple) or len(data) != 2:
            raise DataError(
                f"client {client!r}: data is an (x, y) pair or a dict of columns, not a {type(data).__name__}"
            )
        data = dict(zip("xy", data, strict=True))
    try:
        columns = {str(name): _column(str(name), values) for name, values in data.items()}
    except (DataError, ValueError) as error:
        raise DataError(f"client {client!r}: {error}") from error
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"client {client!r}: columns have different numbers of rows ({lengths})")
    if not columns or not next(iter(counts.values())):
        raise DataError(f"client {client!r} has no examples: leave it out of the population")
    return columns


def _check_alike(first: str, wanted: dict[str, Column], client: str, columns: dict[str, Column]) -> None:
    if columns.keys() != wanted.keys():
        raise DataError(
            f"client {client!r} has columns {', '.join(columns)}, client {first!r} has {', '.join(wanted)}: "
            "all clients have the same"
        )
    for name, column in columns.items():
        if column.shape[1:] != wanted[name].shape[1:]:
            raise DataError(
                f"client {client!r}: rows of {name!r} have shape {column.shape[1:]}, those of client {first!r} "
                f"{wanted[name].shape[1:]}: all clients have the same"
            )


def _offsets(counts: Any) -> Column:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _share(fraction: float, of: int, what: str) -> int:
    fraction = number(fraction, f"the fraction of {what} to hold out is over 0 and under 1", lambda v: 0 < v < 1)
    if of < 2:
        raise SettingError(f"one of {of} {what} cannot be held out")
    return min(max(round(fraction * of), 1), of - 1)
