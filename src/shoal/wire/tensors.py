"""Arrays as bytes: safetensors' container, read only as what was expected before the first byte came.

Eight bytes say how long the header is (little-endian), the header says in JSON each array's name, dtype, shape and
place, then the arrays follow without a gap, little-endian, in the order of the header. A `Schema` fixes all of that
beforehand, so the header of a container is compared and not believed: no length in it makes anybody allocate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, BinaryIO

import msgspec
import numpy as np
from msgspec import Meta, Struct

from shoal.errors import SettingError, WireError

HEADER_BYTES = 8 * 1024 * 1024
"""The largest header."""

_PIECE = 4 * 1024 * 1024
_NOTE_NAME = 200  # bytes, as JSON
_CODES = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}

Array = np.ndarray[Any, Any]
Buffer = bytes | bytearray | memoryview
Piece = tuple[str, int, Array]
"""The name of an array, how many of its elements came before, and the next ones, flat."""


@dataclass(frozen=True)
class Entry:
    """One array of a container, before it is there."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @cached_property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class NotesRule:
    """Which further arrays a container may hold: float32, one axis, after all others, in the order of their names."""

    prefix: str = "notes."
    most: int = 64
    entries: int = 1024


@dataclass(frozen=True)
class Schema:
    """What a container holds, in order: known to the reader before the first byte comes.

    >>> schema = Schema((Entry("weight", "float32", ()),))
    >>> float(unpack(pack({"weight": np.float32(0.5)}), schema)["weight"])
    0.5
    """

    entries: tuple[Entry, ...]
    notes: NotesRule | None = None

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.entries]
        if len(set(names)) < len(names) or "__metadata__" in names:
            raise SettingError("the arrays of a container have different names, and none of them is __metadata__")
        for entry in self.entries:
            _code(entry.name, entry.dtype)
        if self.notes and any(name.startswith(self.notes.prefix) for name in names):
            raise SettingError(f"names that begin with {self.notes.prefix!r} are those of notes")
        if self.most_header > HEADER_BYTES:
            raise SettingError(f"{len(names):,} arrays need a header of more than {HEADER_BYTES:,} bytes")

    @staticmethod
    def of(arrays: Mapping[str, Any], *, notes: NotesRule | None = None) -> Schema:
        """The schema of given arrays."""
        return Schema(tuple(Entry(n, np.dtype(a.dtype).name, tuple(np.shape(a))) for n, a in arrays.items()), notes)

    @cached_property
    def most_header(self) -> int:
        """How long a header is at most that anybody looks at: the right one, notes, and room for a mistake."""
        extra = self.notes.most * (_NOTE_NAME + 100) if self.notes else 0
        return len(_header(self.entries)) + extra + 4096

    @cached_property
    def most_bytes(self) -> int:
        """How long the container can be: no upload of more is taken."""
        extra = self.notes.most * self.notes.entries * 4 if self.notes else 0
        return 8 + self.most_header + sum(entry.size_bytes for entry in self.entries) + extra


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
    start = 8 + _header_length(view, schema)
    if start > len(view):
        raise WireError(f"the container ends within its header, after {len(view):,} bytes")
    entries = _checked(bytes(view[8:start]), schema)
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
            raise WireError(f"the container ends within {_shown(self._entries[self._place].name)}")

    def _begin(self, rest: memoryview) -> memoryview:
        """Takes what belongs to the header; the rest of the chunk."""
        missing = 8 - len(self._head)
        if missing > 0:
            self._head += rest[:missing]
            rest = rest[missing:]
            if len(self._head) < 8:
                return rest
        end = 8 + _header_length(self._head, self._schema)
        missing = end - len(self._head)
        self._head += rest[:missing]
        if len(self._head) == end:
            self._entries = _checked(bytes(self._head[8:]), self._schema)
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


class _Place(Struct, forbid_unknown_fields=True):
    """What a header says of one array."""

    dtype: str
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=2**48)]], Meta(max_length=32)]
    data_offsets: tuple[int, int]


_decoder = msgspec.json.Decoder(dict[str, _Place])


def _parts(arrays: Mapping[str, Any]) -> Iterable[Buffer]:
    """The header, and the bytes of each array."""
    whole = {name: np.asarray(array) for name, array in arrays.items()}
    header = _header(Schema.of(whole).entries)
    yield len(header).to_bytes(8, "little") + header
    for array in whole.values():
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if little.flags.c_contiguous:
            yield little.reshape(-1).view(np.uint8).data
        else:
            starts = range(0, little.size, _PIECE // 8)
            yield from (np.ascontiguousarray(little.flat[i : i + _PIECE // 8]).data for i in starts)


def _header(entries: Iterable[Entry]) -> bytes:
    """The header of a container, filled up with spaces so that the arrays begin at a multiple of 8."""
    places: dict[str, _Place] = {}
    end = 0
    for entry in entries:
        begin, end = end, end + entry.size_bytes
        places[entry.name] = _Place(_code(entry.name, entry.dtype), list(entry.shape), (begin, end))
    text = msgspec.json.encode(places)
    return text + b" " * (-len(text) % 8)


def _header_length(first: Buffer, schema: Schema) -> int:
    """The header's length from a container's first bytes."""
    if len(first) < 8:
        raise WireError(f"the container ends within its header, after {len(first)} bytes")
    length = int.from_bytes(first[:8], "little")
    if length > schema.most_header:
        raise WireError(
            f"the header claims {length:,} bytes, and what was asked for needs at most {schema.most_header:,}"
        )
    return length


def _checked(header: bytes, schema: Schema) -> tuple[Entry, ...]:
    """The entries that a header lists; WireError if they are not what the schema says, in its order and way."""
    if schema.notes is None and header == _header(schema.entries):
        return schema.entries
    try:
        places = _decoder.decode(header)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise WireError(
            "the header is not a list of arrays in JSON: the bytes are damaged, or of another format"
        ) from None
    found = tuple(_entry(name, place) for name, place in places.items())
    for entry in schema.entries:
        if entry.name not in places:
            raise WireError(f"the container lacks {_shown(entry.name)}")
    for got, wanted in zip(found, schema.entries, strict=False):
        _check_same(got, wanted)
    _check_notes(found[len(schema.entries) :], schema)
    if header != _header(found):  # two of one name, an array twice, a gap, another spelling
        raise WireError(
            "the header lists its arrays twice, with gaps between them, or not in the way that is asked for"
        )
    return found


def _entry(name: str, place: _Place) -> Entry:
    if place.dtype not in _NAMES:
        raise WireError(f"{_shown(name)} has a dtype that does not travel: {', '.join(_NAMES)} do")
    return Entry(name, _NAMES[place.dtype], tuple(place.shape))


def _check_same(got: Entry, wanted: Entry) -> None:
    if got.name != wanted.name:
        raise WireError(f"the container has {_shown(got.name)} where {_shown(wanted.name)} belongs")
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        raise WireError(
            f"{_shown(got.name)} is {got.dtype}{list(got.shape)}, and {wanted.dtype}{list(wanted.shape)} was asked for"
        )


def _check_notes(found: tuple[Entry, ...], schema: Schema) -> None:
    rule = schema.notes
    if not found:
        return
    if rule is None:
        raise WireError(f"the container holds {_shown(found[0].name)}, which was not asked for")
    if len(found) > rule.most:
        raise WireError(
            f"the container holds {len(found)} arrays beside those asked for, and {rule.most} notes may be there"
        )
    for entry in found:
        if not entry.name.startswith(rule.prefix) or len(msgspec.json.encode(entry.name)) > _NOTE_NAME:
            raise WireError(f"the container holds {_shown(entry.name)}, which was not asked for and is no note")
        if entry.dtype != "float32" or len(entry.shape) != 1 or entry.size > rule.entries:
            raise WireError(
                f"{_shown(entry.name)} is no note: those are float32, with one axis of at most {rule.entries}"
            )
    if [entry.name for entry in found] != sorted(entry.name for entry in found):
        raise WireError("notes come in the order of their names")


def _check_bits(entry: Entry, flat: Array) -> None:
    if entry.dtype == "bool" and flat.size and flat.view(np.uint8).max() > 1:
        raise WireError(f"{_shown(entry.name)} holds bytes that are neither true nor false")


def _little(entry: Entry) -> np.dtype[Any]:
    return np.dtype(entry.dtype).newbyteorder("<")


def _code(name: str, dtype: str) -> str:
    if dtype not in _CODES:
        raise SettingError(f"{name} is {dtype}, which does not travel: {', '.join(_CODES)} do")
    return _CODES[dtype]


def _shown(name: str) -> str:
    """A name that came from somewhere, short and printable."""
    return ascii(name if len(name) <= 60 else f"{name[:57]}...")
