"""Files as answers: whole or a range of them, in a bounded piece of memory."""

from __future__ import annotations

import asyncio
import os
import re
from typing import BinaryIO

from shoal.errors import ServerError
from shoal.server.exchange import Exchange
from shoal.server.limits import CHUNK_BYTES

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_BYTES = b"application/octet-stream"


async def send_file(
    exchange: Exchange, file: BinaryIO, *, tag: str, kind: bytes = _BYTES, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """Answers with a file: 200, 206 for a range, 304 if the peer has it, 416 for a range that is not in it.

    `tag` names these bytes for ever. A peer that takes them slower than the limits allow is left alone.
    """
    on_disk = _on_disk(file)
    size = file.seek(0, os.SEEK_END)
    quoted = f'"{tag}"'
    known = [(b"etag", quoted.encode()), (b"accept-ranges", b"bytes"), *headers]
    if quoted in exchange.header("if-none-match"):
        await exchange.whole(304, known, b"")
        return
    start, end = 0, size
    asked = exchange.header("range") if exchange.header("if-range") in ("", quoted) else ""
    if asked:
        start, end = _span(asked, size)
        known.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
    await exchange.begin(206 if asked else 200, [*known, (b"content-type", kind)], end - start)
    async with asyncio.timeout(exchange.limits.seconds_for(end - start)):
        while start < end:
            span = (file, start, min(CHUNK_BYTES, end - start))
            data = _read(*span) if on_disk else await asyncio.to_thread(_read, *span)
            if not data:
                raise OSError("the file became shorter while it was sent")
            start += len(data)
            await exchange.more(data, last=start == end)
        if size == 0:
            await exchange.more(b"", last=True)


def _on_disk(file: BinaryIO) -> bool:
    """Whether reading takes no longer than a disk; else it waits for a network."""
    try:
        return file.fileno() >= 0
    except OSError:
        return False


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


def _span(asked: str, size: int) -> tuple[int, int]:
    """The first byte of a range and the one after its last."""
    match = _RANGE.fullmatch(asked)
    first, last = match.groups() if match else ("", "")
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    elif last:
        start, end = max(0, size - int(last)), size
    else:
        start, end = 0, 0
    if start >= end:
        raise ServerError(f"a range is within the {size:,} bytes there are, as in bytes=0-99; one only", code="range")
    return start, end
