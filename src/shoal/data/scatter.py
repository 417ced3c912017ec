"""Rows of a file on their way to their clients, in two readings.

The first counts each client's rows, so that it is known where they will lie; the second puts every row in its place.
Memory holds a batch of rows, a part of the result and a few numbers for each client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Protocol

import numpy as np
from jaxtyping import Int

from shoal.data.files import CsvSource
from shoal.data.meaning import Meaning
from shoal.errors import DataError
from shoal.frames import Column, features_of, numbers_of

BUCKET_BYTES = 2**25
"""How large a part of the result is put in order at a time."""
BUCKETS = 128
"""At most so many parts; those of a larger result are larger."""


@dataclass(frozen=True)
class Clients:
    """What a first reading finds: the clients in order, their numbers of rows, and what labels are."""

    names: tuple[str, ...]
    counts: Column
    rank: Column
    """The place of each client in that order, by its place in order of appearance."""
    label: np.dtype[Any] | None

    @cached_property
    def offsets(self) -> Int[np.ndarray, " clients+1"]:
        """Where each client's rows begin, and where the last one's end."""
        return np.concatenate([[0], np.cumsum(self.counts)])


class Target(Protocol):
    """Where rows go."""

    def put(self, places: Column, rows: Mapping[str, Column]) -> None:
        """Puts rows of all columns into their places, which ascend."""
        ...


@dataclass(frozen=True)
class Arrays:
    """Rows go into arrays."""

    columns: Mapping[str, Column]

    def put(self, places: Column, rows: Mapping[str, Column]) -> None:
        """Puts rows of all columns into their places."""
        for name, column in rows.items():
            self.columns[name][places] = column


class Buckets:
    """Rows go into files, by the part of the result that they belong to; a part is put in order when all is there.

    So everything is written from beginning to end: rows of a million clients that lie mixed would else be a million
    small writes all over the disk.
    """

    def __init__(self, rows: int, columns: Mapping[str, tuple[tuple[int, ...], Any]], open_file: Callable[[], Any]):
        self._columns = columns
        self._record = np.dtype([("place", np.int64), *((n, dtype, shape) for n, (shape, dtype) in columns.items())])
        fitting = max(BUCKET_BYTES // self._record.itemsize, -(-rows // BUCKETS), 1)
        self._ends = np.append(np.arange(fitting, rows, fitting), rows)
        self._files = [open_file() for _ in self._ends]

    def put(self, places: Column, rows: Mapping[str, Column]) -> None:
        """Puts rows of all columns into the files of their parts."""
        records = np.empty(len(places), self._record)
        records["place"] = places
        for name, column in rows.items():
            records[name] = column
        cuts = np.searchsorted(places, self._ends)
        for file, begin, end in zip(self._files, [0, *cuts[:-1]], cuts, strict=True):
            if begin < end:
                file.write(records[begin:end].tobytes())

    def write(self, outputs: Mapping[str, IO[bytes]]) -> None:
        """Writes every column into its file, in NumPy's format, part by part; a part's own file is then gone."""
        for name, (shape, dtype) in self._columns.items():
            about = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(outputs[name], about | {"shape": (int(self._ends[-1]), *shape)})
        for file, begin, end in zip(self._files, [0, *self._ends[:-1]], self._ends, strict=True):
            file.seek(0)
            records = np.frombuffer(file.read(), self._record)
            file.close()
            for name, (shape, dtype) in self._columns.items():
                part = np.empty((end - begin, *shape), dtype)
                part[records["place"] - begin] = records[name]
                outputs[name].write(part.data)


def count(meaning: Meaning, owners: Any) -> Clients:
    """The first reading: clients are counted, and whose each row is goes into a file, by order of appearance."""
    known: dict[Any, int] = {}
    counts = np.zeros(1024, np.int64)
    kinds: list[Column] = []
    for batch in meaning.source.batches(meaning.only(meaning.client, meaning.label)):
        values, rows = _encoded(meaning, batch)
        codes = np.array([known.setdefault(value, len(known)) for value in values], np.int64)
        if len(known) > len(counts):
            counts = np.concatenate([counts, np.zeros(2 * len(known) - len(counts), np.int64)])
        counts[codes] += np.bincount(rows, minlength=len(values))
        owners.write(codes[rows].astype(np.int32).data)
        if meaning.label is not None:
            kinds.append(_kind(numbers_of(batch, meaning.label, meaning.categories)))
    if not known:
        raise DataError(f"{meaning.source.path} has no rows")
    order = _order(meaning, list(known))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    values = list(known)
    names = tuple(str(values[place]) for place in order)
    return Clients(names, counts[order], rank, _label_type(meaning, kinds))


def _encoded(meaning: Meaning, batch: Any) -> tuple[list[Any], Column]:
    """The different values of a batch's client column, and which of them each row has."""
    column = batch.column(meaning.client)
    if str(column.type).startswith("dictionary"):  # it may list values that no row has
        column = column.cast(column.type.value_type)
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if column.null_count or any(value != value or value == "" for value in values):
        raise DataError(
            f"column {meaning.client!r} of {meaning.source.path} says whose row it is, and some rows have nothing "
            "there: every row needs a client"
        )
    return values, encoded.indices.to_numpy()


def _order(meaning: Meaning, values: list[Any]) -> Column:
    """Clients sorted by name; the texts of a CSV file by number, if they are whole numbers all of them."""
    keys: list[Any] = values
    if isinstance(meaning.source, CsvSource) and all(value.removeprefix("-").isdecimal() for value in values):
        keys = [(int(value), value) for value in values]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _kind(labels: Column) -> Column:
    """Whether labels of a batch are all there, and whether they are whole."""
    if labels.dtype.kind != "f":
        return np.array([True, True])
    there = np.isfinite(labels)
    return np.array([there.all(), (labels[there] % 1 == 0).all()])


def _label_type(meaning: Meaning, kinds: list[Column]) -> np.dtype[Any] | None:
    if meaning.label is None:
        return None
    complete, whole = np.all(kinds, axis=0)
    coded = meaning.label in meaning.categories
    found = meaning.source.types[meaning.label]
    if coded or str(found).startswith(("int", "uint", "bool")):
        if not (complete and whole):
            return np.dtype(np.float64)
        return np.dtype(np.int64 if coded else found.to_pandas_dtype())
    return np.dtype(np.float32 if str(found) == "float" else np.float64)


def scatter(meaning: Meaning, clients: Clients, owners: Any, target: Target) -> Column:
    """The second reading: every row goes to its place. Returns which clients are usable."""
    owners.seek(0)
    following = clients.offsets[:-1].copy()
    usable = np.ones(len(clients.names), bool)
    left = clients.counts.sum()
    for batch in meaning.source.batches(meaning.only(meaning.label, *meaning.features)):
        left -= len(batch)
        rank = clients.rank[np.frombuffer(owners.read(4 * len(batch)), np.int32)]
        if len(rank) < len(batch):
            break
        order = np.argsort(rank, kind="stable")
        rank = rank[order]
        first = np.searchsorted(rank, rank, side="left")
        places = following[rank] + np.arange(len(rank)) - first
        np.add.at(following, rank, 1)
        rows = {"x": features_of(batch, meaning.features, meaning.categories)[order]}
        if clients.label is not None:
            y = numbers_of(batch, meaning.label, meaning.categories)
            rows["y"] = y[order].astype(clients.label)
        target.put(places, rows)
        bad = ~np.all([np.isfinite(column.reshape(len(rank), -1)).all(axis=1) for column in rows.values()], axis=0)
        usable[rank[bad]] = False
    if left:
        raise DataError(f"{meaning.source.path} changed while it was read: read it again when it is at rest")
    return usable
