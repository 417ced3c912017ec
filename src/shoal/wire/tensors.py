"""Arrays as bytes: safetensors' container, read only as what was expected before the first byte came.

Eight bytes say how long the header is (little-endian), the header says in JSON each array's name, dtype, shape and
place, then the arrays follow without a gap, little-endian, in the order of the header. A `Schema` fixes all of that
beforehand, so the header of a container is compared and not believed: no length in it makes anybody allocate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

import numpy as np

from shoal.errors import WireError
from shoal.wire.header import Buffer, Entry, Schema, checked, header_length, header_of, shown

_PIECE = 4 * 1024 * 1024

Array = np.ndarray[Any, Any]
Piece = tuple[str, int, Array]
"""The name of an array, how many of its elements came before, and the next ones, flat."""


def pack(arrays: Mapping[str, Any]) -> bytes:
    """The container of arrays, in the order given. The `safetensors` package reads it.

    SettingError for a dtype that does not travel.
    """
    return b"".join(_parts(arrays))


def pack_to(file: BinaryIO, arrays: Mapping[str, Any]) -> None:
    """Writes the container of arrays to a file, copying at most a piece of one at a time."""
    for part in _parts(arrays):
        file.write(part)


def unpack(data: Any, schema: Schema) -> dict[str, Array]:
    """The arrays of a container, read-only views of its bytes, which are any buffer (of a mapped file too).

    An array that is not aligned where it lies is copied. WireError if the container is not what the schema says.
    """
    view = memoryview(data).toreadonly().cast("B")
    start = 8 + header_length(view, schema)
    if start > len(view):
        raise WireError(f"the container ends within its header, after {len(view):,} bytes")
    entries = checked(bytes(view[8:start]), schema)
    wanted = start + sum(entry.size_bytes for entry in entries)
    if len(view) != wanted:
        raise WireError(f"the container has {len(view):,} bytes, and its arrays need {wanted:,}")
    arrays: dict[str, Array] = {}
    for entry in entries:
        flat = np.frombuffer(view, _little(entry), entry.size, start)
        _check_bits(entry, flat)
        start += entry.size_bytes
        array = flat.reshape(entry.shape)
        if not array.flags.aligned:
            array = array.copy()
            array.flags.writeable = False
        arrays[entry.name] = array
    return arrays


class Reader:
    """Reads a container as it comes: chunks in, pieces of arrays out, nothing kept but a header and an odd byte.

    >>> schema = Schema((Entry("value", "float32", (3,)),))
    >>> reader = Reader(schema)
    >>> pieces = reader.feed(pack({"value": np.arange(3, dtype=np.float32)}))
    >>> reader.finish()
    >>> [(name, offset, piece.tolist()) for name, offset, piece in pieces]
    [('value', 0, [0.0, 1.0, 2.0])]
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._head = bytearray()  # what is known of the length and the header
        self._entries: tuple[Entry, ...] | None = None
        self._place, self._offset = 0, 0  # of the next element: in which entry, and where there
        self._odd = b""  # the begin of an element whose end has not come

    def feed(self, chunk: Buffer) -> list[Piece]:
        """The pieces in a chunk: views of it, to be used before it changes. WireError if it cannot be right."""
        rest = memoryview(chunk).toreadonly().cast("B")
        if self._entries is None:
            rest = self._begin(rest)
        pieces: list[Piece] = []
        while rest:
            entry = self._entry()
            taken, rest = self._take(entry, rest)
            if taken is not None:
                _check_bits(entry, taken)
                pieces.append((entry.name, self._offset, taken))
                self._offset += len(taken)
        return pieces

    def finish(self) -> None:
        """WireError if anything is missing."""
        if self._entries is None:
            raise WireError(f"the container ends within its header, after {len(self._head):,} bytes")
        self._skip_full()
        if self._place < len(self._entries):
            raise WireError(f"the container ends within {shown(self._entries[self._place].name)}")

    def _begin(self, rest: memoryview) -> memoryview:
        """Takes what belongs to the header; the rest of the chunk."""
        missing = 8 - len(self._head)
        if missing > 0:
            self._head += rest[:missing]
            rest = rest[missing:]
            if len(self._head) < 8:
                return rest
        end = 8 + header_length(self._head, self._schema)
        missing = end - len(self._head)
        self._head += rest[:missing]
        if len(self._head) == end:
            self._entries = checked(bytes(self._head[8:]), self._schema)
        return rest[missing:]

    def _skip_full(self) -> None:
        entries = self._entries or ()
        while self._place < len(entries) and self._offset == entries[self._place].size:
            self._place, self._offset = self._place + 1, 0

    def _entry(self) -> Entry:
        """The entry that the next byte belongs to."""
        self._skip_full()
        if self._entries is None or self._place == len(self._entries):
            raise WireError("the container goes on after its last array")
        return self._entries[self._place]

    def _take(self, entry: Entry, rest: memoryview) -> tuple[Array | None, memoryview]:
        """The next elements of an entry, if a whole one is there, and what remains of the chunk."""
        dtype = _little(entry)
        if self._odd or len(rest) < dtype.itemsize:
            missing = dtype.itemsize - len(self._odd)
            self._odd += bytes(rest[:missing])
            if len(self._odd) < dtype.itemsize:
                return None, rest[missing:]
            element, self._odd = np.frombuffer(self._odd, dtype), b""
            return element, rest[missing:]
        count = min(entry.size - self._offset, len(rest) // dtype.itemsize)
        return np.frombuffer(rest, dtype, count), rest[count * dtype.itemsize :]


def _parts(arrays: Mapping[str, Any]) -> Iterable[Buffer]:
    """The header, and the bytes of each array."""
    whole = {name: np.asarray(array) for name, array in arrays.items()}
    header = header_of(Schema.of(whole).entries)
    yield len(header).to_bytes(8, "little") + header
    for array in whole.values():
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if little.flags.c_contiguous:
            yield little.reshape(-1).view(np.uint8).data
        else:
            starts = range(0, little.size, _PIECE // 8)
            yield from (np.ascontiguousarray(little.flat[i : i + _PIECE // 8]).data for i in starts)


def _check_bits(entry: Entry, flat: Array) -> None:
    if entry.dtype == "bool" and flat.size and flat.view(np.uint8).max() > 1:
        raise WireError(f"{shown(entry.name)} holds bytes that are neither true nor false")


def _little(entry: Entry) -> np.dtype[Any]:
    return np.dtype(entry.dtype).newbyteorder("<")
