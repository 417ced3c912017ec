"""Masks: long streams from short keys, added to a vector or taken from it, as fast as AES goes.

The stream of a key is AES-256 in counter mode from a counter of zero (NIST SP 800-38A, section 6.5). Its first bytes
mask the entries, little-endian; padded to whole blocks of 16 bytes, those after them mask the slots. A block can be
reached without those before it, so a long vector is split by place, and a short one by job.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shoal.secure.ring import Ring

Job = tuple[bytes, int]
"""A key of 32 bytes, and 1 to add its stream or -1 to subtract it."""

BLOCK = 16
PIECE = 2**18
"""Bytes of a stream at a time. They stay in a core's cache; with less, threads wait for the interpreter's lock."""
LONG = 2**20
"""Bytes of every stream for one thread; with fewer, starting a stream twice would take longer than a part of it."""
TOGETHER = 1024
"""How many streams are open at once: each takes about a kilobyte."""

_ZEROS = memoryview(bytes(PIECE))


class Piece(NamedTuple):
    """Bytes `start` to `stop` of every stream, and what they mask: entries, and where in the piece their masks are."""

    start: int
    stop: int
    masked: tuple[tuple[Ring, slice], ...]


def add_masks(jobs: Sequence[Job], value: Ring, slots: Ring, *, threads: int = 1) -> None:
    """Adds or subtracts the streams of all jobs in place: to `value` modulo its dtype, to `slots` modulo 2**64.

    The result is the same for any number of threads. Memory beside the arguments: some pieces, and for short vectors
    one more vector a thread.

    >>> key, value, slots = bytes(32), np.zeros(5, np.uint16), np.zeros(1, np.uint64)
    >>> add_masks([(key, 1)], value, slots)
    >>> value.tobytes()[:4].hex()
    'dc95c078'
    >>> add_masks([(key, -1)], value, slots)
    >>> value.tolist(), slots.tolist()
    ([0, 0, 0, 0, 0], [0])
    """
    size = _length(value, slots)
    if threads == 1:
        _add(jobs, _pieces(value, slots, 0, size))
    elif size >= threads * LONG:
        places = [size * i // threads // BLOCK * BLOCK for i in range(threads)]
        parts = [_pieces(value, slots, start, stop) for start, stop in pairwise([*places, size])]
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: _add(jobs, part), parts))
    else:
        with ThreadPoolExecutor(threads) as pool:
            sums = pool.map(lambda first: _sum(jobs[first::threads], value, slots), range(threads))
        for entries, more in sums:
            np.add(value, entries, out=value)
            np.add(slots, more, out=slots)


def _length(value: Ring, slots: Ring) -> int:
    return _after(value) + slots.nbytes


def _after(value: Ring) -> int:
    """Where in a stream the masks of the slots begin."""
    return -(-value.nbytes // BLOCK) * BLOCK


def _sum(jobs: Sequence[Job], value: Ring, slots: Ring) -> tuple[Ring, Ring]:
    """The masks of some jobs alone, added up."""
    alone = np.zeros(value.size, value.dtype), np.zeros(slots.size, slots.dtype)
    _add(jobs, _pieces(*alone, 0, _length(*alone)))
    return alone


def _pieces(value: Ring, slots: Ring, start: int, stop: int) -> list[Piece]:
    """The pieces of a stretch of every stream."""
    cuts = pairwise([*range(start, stop, PIECE), stop])
    return [
        Piece(first, last, (*_masked(value, 0, first, last), *_masked(slots, _after(value), first, last)))
        for first, last in cuts
    ]


def _masked(entries: Ring, at: int, first: int, last: int) -> list[tuple[Ring, slice]]:
    """The entries whose masks are in bytes `first` to `last` of a stream, if those of all begin at byte `at`."""
    start, stop = max(first, at), min(last, at + entries.nbytes)
    if start >= stop:
        return []
    width = entries.itemsize
    return [(entries[(start - at) // width : (stop - at) // width], slice(start - first, stop - first))]


def _add(jobs: Sequence[Job], pieces: Sequence[Piece]) -> None:
    """Adds the streams piece by piece: all streams of a piece, then the next piece of the same streams."""
    room = memoryview(bytearray(PIECE))
    for first in range(0, len(jobs) if pieces else 0, TOGETHER):
        counter = modes.CTR((pieces[0].start // BLOCK).to_bytes(BLOCK, "big"))
        streams = [
            (Cipher(algorithms.AES256(key), counter).encryptor(), np.add if sign > 0 else np.subtract)
            for key, sign in jobs[first : first + TOGETHER]
        ]
        for piece in pieces:
            zeros, stream = _ZEROS[: piece.stop - piece.start], room[: piece.stop - piece.start]
            masked = [(entries, np.frombuffer(stream[place], entries.dtype)) for entries, place in piece.masked]
            for cipher, change in streams:
                cipher.update_into(zeros, stream)  # without the interpreter's lock, as the sums are
                for entries, mask in masked:
                    change(entries, mask, out=entries)
