"""Which arrays a container holds, known before it comes, and the header that says the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from shoal.errors import SettingError, WireError

HEADER_BYTES = 8 * 1024 * 1024
"""The largest header."""

_NOTE_NAME = 200  # bytes, as JSON
_CODES = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "uint8": "U8", "uint16": "U16",
    "uint32": "U32", "uint64": "U64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}

Buffer = bytes | bytearray | memoryview


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

    >>> from shoal.wire.tensors import pack, unpack
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
        return len(header_of(self.entries)) + extra + 4096

    @cached_property
    def most_bytes(self) -> int:
        """How long the container can be: no upload of more is taken."""
        extra = self.notes.most * self.notes.entries * 4 if self.notes else 0
        return 8 + self.most_header + sum(entry.size_bytes for entry in self.entries) + extra


class _Place(Struct, forbid_unknown_fields=True):
    """What a header says of one array."""

    dtype: str
    shape: Annotated[list[Annotated[int, Meta(ge=0, le=2**48)]], Meta(max_length=32)]
    data_offsets: tuple[int, int]


_decoder = msgspec.json.Decoder(dict[str, _Place])


def header_of(entries: Iterable[Entry]) -> bytes:
    """The header of a container, filled up with spaces so that the arrays begin at a multiple of 8."""
    places: dict[str, _Place] = {}
    end = 0
    for entry in entries:
        begin, end = end, end + entry.size_bytes
        places[entry.name] = _Place(_code(entry.name, entry.dtype), list(entry.shape), (begin, end))
    text = msgspec.json.encode(places)
    return text + b" " * (-len(text) % 8)


def header_length(first: Buffer, schema: Schema) -> int:
    """The header's length from a container's first bytes."""
    if len(first) < 8:
        raise WireError(f"the container ends within its header, after {len(first)} bytes")
    length = int.from_bytes(first[:8], "little")
    if length > schema.most_header:
        raise WireError(
            f"the header claims {length:,} bytes, and what was asked for needs at most {schema.most_header:,}"
        )
    return length


def checked(header: bytes, schema: Schema) -> tuple[Entry, ...]:
    """The entries that a header lists; WireError if they are not what the schema says, in its order and way."""
    if schema.notes is None and header == header_of(schema.entries):
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
            raise WireError(f"the container lacks {shown(entry.name)}")
    for got, wanted in zip(found, schema.entries, strict=False):
        _check_same(got, wanted)
    _check_notes(found[len(schema.entries) :], schema)
    if header != header_of(found):  # two of one name, an array twice, a gap, another spelling
        raise WireError(
            "the header lists its arrays twice, with gaps between them, or not in the way that is asked for"
        )
    return found


def _entry(name: str, place: _Place) -> Entry:
    if place.dtype not in _NAMES:
        raise WireError(f"{shown(name)} has a dtype that does not travel: {', '.join(_NAMES)} do")
    return Entry(name, _NAMES[place.dtype], tuple(place.shape))


def _check_same(got: Entry, wanted: Entry) -> None:
    if got.name != wanted.name:
        raise WireError(f"the container has {shown(got.name)} where {shown(wanted.name)} belongs")
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        raise WireError(
            f"{shown(got.name)} is {got.dtype}{list(got.shape)}, and {wanted.dtype}{list(wanted.shape)} was asked for"
        )


def _check_notes(found: tuple[Entry, ...], schema: Schema) -> None:
    rule = schema.notes
    if not found:
        return
    if rule is None:
        raise WireError(f"the container holds {shown(found[0].name)}, which was not asked for")
    if len(found) > rule.most:
        raise WireError(
            f"the container holds {len(found)} arrays beside those asked for, and {rule.most} notes may be there"
        )
    for entry in found:
        if not entry.name.startswith(rule.prefix) or len(msgspec.json.encode(entry.name)) > _NOTE_NAME:
            raise WireError(f"the container holds {shown(entry.name)}, which was not asked for and is no note")
        if entry.dtype != "float32" or len(entry.shape) != 1 or entry.size > rule.entries:
            raise WireError(
                f"{shown(entry.name)} is no note: those are float32, with one axis of at most {rule.entries}"
            )
    if [entry.name for entry in found] != sorted(entry.name for entry in found):
        raise WireError("notes come in the order of their names")


def _code(name: str, dtype: str) -> str:
    if dtype not in _CODES:
        raise SettingError(f"{name} is {dtype}, which does not travel: {', '.join(_CODES)} do")
    return _CODES[dtype]


def shown(name: str) -> str:
    """A name that came from somewhere, short and printable."""
    return ascii(name if len(name) <= 60 else f"{name[:57]}...")
