"""The sum of a round, made from blobs as they come, a chunk at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from shoal.aggregation import Bag, Payload
from shoal.data.mapped import let_go
from shoal.wire.payloads import unpack_payload
from shoal.wire.tensors import Reader, Schema

NOTES = "notes."
IN_MEMORY_BYTES = 64 * 1024 * 1024
"""Sums up to this size are held in memory; larger ones lie in a file."""
MOST_NOTES = 256
"""How many different notes a round's sum has at most: others are dropped."""

Array = np.ndarray[Any, Any]


class Total:
    """Payloads added up one after the other, in their own dtypes: as a simulation adds them, to the bit.

    Whole numbers are added as int64, so that no order of them overflows on the way.
    """

    def __init__(self, schema: Schema, folder: str | None = None) -> None:
        self._schema, self._folder = schema, folder
        entries = {entry.name: entry for entry in schema.entries}
        self._value_entry = entries["value"]
        self._value = self._zeros(self._value_entry.shape, _wide(self._value_entry.dtype))
        self._weight, self._clients = np.float32(0), 0
        self._notes: dict[str, Array] = {}

    def add(self, chunks: Iterable[bytes], scale: float = 1.0) -> None:
        """Adds one payload from its blob, its value times `scale`. The blob was checked before."""
        reader = Reader(self._schema)
        flat, touched = self._value.reshape(-1), 0
        for chunk in chunks:
            touched += len(chunk)
            if touched > IN_MEMORY_BYTES:
                let_go(self._value)
                touched = 0
            for name, offset, piece in reader.feed(chunk):
                match name:
                    case "value":
                        part = flat[offset : offset + len(piece)]
                        with np.errstate(over="ignore"):  # the model after it is looked at
                            np.add(part, piece if scale == 1 else piece * part.dtype.type(scale), out=part)
                    case "weight":
                        self._weight += np.float32(piece[0])
                    case "clients":
                        self._clients += int(piece[0])
                    case _:
                        self._note(name, offset, piece)
        reader.finish()
        let_go(self._value)

    def _note(self, name: str, offset: int, piece: Array) -> None:
        held = self._notes.get(name, np.zeros(0, np.float32))
        if not len(held) and len(self._notes) >= MOST_NOTES:
            return
        if len(held) < offset + len(piece):
            held = np.concatenate([held, np.zeros(offset + len(piece) - len(held), np.float32)])
        with np.errstate(over="ignore"):  # anybody may say anything; a metric that is not finite is not told
            held[offset : offset + len(piece)] += piece
        self._notes[name] = held

    def payload(self) -> Payload:
        """The sum, as if payloads had been added one by one."""
        notes = {name.removeprefix(NOTES): note for name, note in sorted(self._notes.items())}
        value = self._value.astype(self._value_entry.dtype, copy=False)
        return Payload(value, self._weight, notes, np.int32(self._clients))

    def _zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        if np.prod(shape) * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES:
            return np.zeros(shape, dtype)
        file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  it lives as long as the map
        return np.memmap(file, dtype, "w+", shape=shape)


def side_by_side(schema: Schema, blobs: Iterable[bytes]) -> Bag:
    """Payloads for a robust rule: one row each, in the order given."""
    bags: list[Any] = [unpack_payload(data, schema) for data in blobs]
    names = sorted({name for bag in bags for name in bag.notes})[:MOST_NOTES]
    notes: dict[str, Array] = {}
    for name in names:
        given = [np.asarray(bag.notes[name]) for bag in bags if name in bag.notes]
        notes[name] = sum((note for note in given if note.shape == given[0].shape), np.zeros_like(given[0]))
    rows = {field: np.concatenate([getattr(bag, field) for bag in bags]) for field in ("value", "weight", "clients")}
    return Bag(notes=notes, **rows)


def _wide(dtype: Any) -> Any:
    return np.int64 if np.dtype(dtype).kind in "iu" else np.dtype(dtype)
