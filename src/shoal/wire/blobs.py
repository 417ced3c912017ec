"""Blobs: bytes of any length that are known before they come, by the digests of their parts.

A manifest says how long a blob is and what each part's SHA-256 is; the blob's id is the digest of that. So a blob can
be sent in any order, by whom it may be, interrupted and gone on with, and no byte of it has to be believed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import zstandard

from shoal.errors import WireError
from shoal.wire.messages import PART_BYTES, Manifest

_PIECE = 256 * 1024  # what is read, hashed, compressed or handed on at once
_WINDOW = 8 * 1024 * 1024  # what a frame may ask a reader to remember
_LEVEL = 3
_MOST_PARTS = 100_000


def manifest_of(data: bytes | Path, *, part_bytes: int = PART_BYTES, coding: str = "") -> Manifest:
    """The manifest of bytes, or of a file that is read piece by piece.

    With `coding` "zstd" the bytes are one frame that says how long its content is, as `compressed` makes them.
    WireError if they are not, or if there would be too many parts.

    >>> manifest_of(b"four bytes", part_bytes=4).size_bytes
    10
    """
    parts: list[bytes] = []
    size, start, part = 0, b"", hashlib.sha256()
    for piece in _pieces(data):
        start = start or piece[:18]
        view = memoryview(piece)
        while view:
            room = part_bytes - size % part_bytes
            part.update(view[:room])
            size += min(room, len(view))
            view = view[room:]
            if size % part_bytes == 0:
                parts.append(part.digest())
                part = hashlib.sha256()
    if size % part_bytes:
        parts.append(part.digest())
    if len(parts) > _MOST_PARTS:
        raise WireError(f"a blob has at most {_MOST_PARTS:,} parts, and this one has {len(parts):,}: take larger parts")
    if coding not in ("", "zstd"):
        raise WireError("the coding of a blob is '' or 'zstd'")
    raw = size if coding == "" else _content_size(start)
    return Manifest(
        size_bytes=size, part_bytes=part_bytes, parts=tuple(parts), coding="zstd" if coding else "", raw_bytes=raw
    )


def blob_id(manifest: Manifest) -> str:
    """The name of a blob, 64 hexadecimal digits: SHA-256 of everything in its manifest.

    >>> blob_id(manifest_of(b""))[:16]
    '40c8e3e6867fca34'
    """
    coding = manifest.coding.encode()
    fields = struct.pack(
        "<QQQII", manifest.size_bytes, manifest.part_bytes, manifest.raw_bytes, len(manifest.parts), len(coding)
    )
    return hashlib.sha256(b"".join([b"shoal blob 1\0", fields, coding, *manifest.parts])).hexdigest()


def check_manifest(manifest: Manifest, *, most_bytes: int) -> None:
    """WireError if a manifest contradicts itself, or the blob is larger than `most_bytes`, packed or unpacked."""
    wanted = -(-manifest.size_bytes // manifest.part_bytes)
    if len(manifest.parts) != wanted or wanted > _MOST_PARTS:
        raise WireError(
            f"{manifest.size_bytes:,} bytes in parts of {manifest.part_bytes:,} are {wanted:,} parts (at most "
            f"{_MOST_PARTS:,}), and the manifest lists {len(manifest.parts):,}"
        )
    largest = max(manifest.size_bytes, manifest.raw_bytes)
    if largest > most_bytes:
        raise WireError(f"a blob of {largest:,} bytes is larger than the {most_bytes:,} that are taken here")
    if manifest.coding == "" and manifest.raw_bytes != manifest.size_bytes:
        raise WireError(
            f"a blob without a coding is as long unpacked as it is, {manifest.size_bytes:,} bytes, and this manifest "
            f"says {manifest.raw_bytes:,}"
        )


def part_span(manifest: Manifest, number: int) -> tuple[int, int]:
    """Where a part begins, and how long it is; WireError if there is no part of that number."""
    if not 0 <= number < len(manifest.parts):
        raise WireError(f"this blob has parts 0 to {len(manifest.parts) - 1}, and no part {number}")
    offset = number * manifest.part_bytes
    return offset, min(manifest.part_bytes, manifest.size_bytes - offset)


def check_part(manifest: Manifest, number: int, digest: bytes) -> None:
    """WireError if a part's SHA-256 (32 bytes) is not the one declared."""
    part_span(manifest, number)
    if digest != manifest.parts[number]:
        raise WireError(f"part {number} of the blob is not the one declared: its digest is another. Send it again")


def coded(data: bytes) -> tuple[bytes, str]:
    """The bytes to send and their coding: compressed where a tenth or more is saved, else as they are.

    Trained weights are noise to a compressor, zeros and small integers are not: samples tell in next to no time.
    """
    step = max(len(data) // 4, _PIECE // 4)
    sample = b"".join(data[start : start + _PIECE // 4] for start in range(0, len(data), step))
    packer = zstandard.ZstdCompressor(level=_LEVEL)
    if not sample or len(packer.compress(sample)) > 0.9 * len(sample):
        return data, ""
    return packer.compress(data), "zstd"


def compressed(data: bytes | Path) -> Iterator[bytes]:
    """One zstd frame with the content's size in it, piece by piece."""
    size = data.stat().st_size if isinstance(data, Path) else len(data)
    packer = zstandard.ZstdCompressor(level=_LEVEL).compressobj(size=size)
    try:
        for piece in _pieces(data):
            if packed := packer.compress(piece):
                yield packed
        yield packer.flush()
    except zstandard.ZstdError as error:
        raise WireError("the file changed while it was compressed: try again") from error


def raw_chunks(chunks: Iterable[bytes], manifest: Manifest) -> Iterator[bytes]:
    """The blob's content from its bytes, decompressed if it has a coding; never more than `raw_bytes` of it.

    Memory is bounded by a chunk and a window of 8 MB, whatever the bytes claim. WireError if they hold more or less
    content than declared, or are damaged.
    """
    total = 0
    for piece in chunks if manifest.coding == "" else _decompressed(chunks):
        total += len(piece)
        if total > manifest.raw_bytes:
            raise WireError(f"the blob holds more than the {manifest.raw_bytes:,} bytes that it declared")
        yield piece
    if total < manifest.raw_bytes:
        raise WireError(f"the blob declared {manifest.raw_bytes:,} bytes, and holds {total:,}")


def _decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    source = cast("Any", _Chunks(chunks))  # the stub wants a file, and only `read` is called
    with unpacker.stream_reader(source, read_size=_PIECE, read_across_frames=True) as reader:
        while True:
            try:
                piece = reader.read(_PIECE)
            except zstandard.ZstdError:
                raise WireError("the blob is not zstd that can be read here: it is damaged") from None
            if not piece:
                return
            yield piece


class _Chunks:
    """An iterator of bytes that can be read from."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most so many bytes; none only at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


def _pieces(data: bytes | Path) -> Iterator[bytes]:
    if not isinstance(data, Path):
        if data:
            yield data
        return
    with data.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _content_size(start: bytes) -> int:
    try:
        size = zstandard.frame_content_size(start)
    except zstandard.ZstdError as error:
        raise WireError("these bytes are not a zstd frame") from error
    if size < 0:
        raise WireError("this zstd frame does not say how long its content is")
    return size
