"""Secure sums: what they cost clients and the server beside the least that their masks take, AES and additions.

Every client and the server of a session are played, one after the other, in this process: CPU seconds are its own.
The least is the number of streams that the server expands times what one takes alone, measured beside it.
"""

from __future__ import annotations

import hashlib
import secrets
import statistics
import time
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.report import Report
from benchmarks.secure_session import Cost, Sized, played
from shoal.secure.masks import add_masks
from shoal.secure.parameters import Shape

COMPLETE = (100, 1_000_000, Shape(99, 67))
SPARSE = (1000, 100_000, Shape(88, 36))
"""How many clients, how many entries, and who holds whose shares."""
PIECE = 2**17
ASKED_AT = 0.57e-9
"""Seconds that AES and the addition of an entry took where the clients' milliseconds were asked: bounds go with it."""


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows."""
    parts: dict[str, Callable[[Report, bool], None]] = {
        "100 clients, 1e6 entries": complete,
        "1000 clients, 1e5 entries": sparse,
        "masks on two threads": threads,
    }
    for name, part in parts.items():
        if only in name:
            part(report, quick)


def complete(report: Report, quick: bool) -> None:
    """A hundred clients that share with each other."""
    clients, size, shape = COMPLETE
    name = "100 clients, 1e6 entries"
    for percent in (0, 10, 30):
        cost, stream = _server(
            report, f"{name}: server, {percent} % gone", Sized(clients, size, percent, shape), quick, most=1.3
        )
        if percent == 0:
            _client(report, name, cost, stream, COMPLETE, most_s=0.090)
            report.add(f"{name}: wire, of an entry", cost.wire_bytes / size, "bytes", bound=4.05)
            report.add(f"{name}: receiving an upload", cost.receiving_s * 1e3, "ms", reference=_hashing(size) * 1e3)


def sparse(report: Report, quick: bool) -> None:
    """A thousand clients, each of which shares with 88."""
    clients, size, shape = SPARSE
    name = "1000 clients, 1e5 entries"
    cost, stream = _server(report, f"{name}: server, 10 % gone", Sized(clients, size, 100, shape), quick, most=2)
    _client(report, name, cost, stream, SPARSE, most_s=0.012)


def threads(report: Report, quick: bool) -> None:
    """Taking masks off with two threads: 1.6 times as fast as with one is 0.625 of its time."""
    for size, count in ((COMPLETE[1], 500), (SPARSE[1], 5000)):
        jobs = [(secrets.token_bytes(32), 1) for _ in range(count // 5 if quick else count)]
        value, slots, seconds = (
            np.zeros(size, np.uint32),
            np.zeros(2, np.uint64),
            dict[int, list[float]]({1: [], 2: []}),
        )
        for _ in range(5):
            for number, taken in seconds.items():
                begun = time.perf_counter()
                add_masks(jobs, value, slots, threads=number)
                taken.append((time.perf_counter() - begun) / len(jobs) * 1e3)
        one, two = (statistics.median(taken) for taken in seconds.values())
        report.add(f"masks on two threads, {size:.0e} entries", two, "ms", reference=one, bound=1 / 1.6)


def _server(report: Report, name: str, sized: Sized, quick: bool, *, most: float) -> tuple[Cost, float]:
    """The median of some sessions by what the server did in them, and what one stream took beside them."""
    costs, least = list[Cost](), list[float]()
    for _ in range(1 if quick else 3):
        least.append(_stream(sized.size))
        costs.append(played(sized))
        least.append(_stream(sized.size))
    cost, bound = sorted(costs, key=lambda cost: cost.ending_s)[len(costs) // 2], statistics.median(least)
    report.add(f"{name}, after the last upload", cost.ending_s, "s", reference=cost.streams * bound)
    report.add(f"{name}, of that signatures, checked as they come", cost.checking_s, "s")
    report.add(f"{name}, after the last answer", cost.unmasking_s, "s", reference=cost.streams * bound, bound=most)
    return cost, bound


def _client(
    report: Report, name: str, cost: Cost, stream: float, session: tuple[int, int, Shape], *, most_s: float
) -> None:
    """What a client spent, beside its masks: one with each neighbour and one of its own."""
    _, size, shape = session
    masks = shape.neighbours + 1
    report.add(
        f"{name}: client", cost.client_s * 1e3, "ms",
        reference=masks * stream * 1e3, bound=most_s / (masks * size * ASKED_AT),
    )  # fmt: skip
    report.add(f"{name}: client, of that signatures", cost.signatures_s * 1e3, "ms")


def _stream(size: int) -> float:
    """CPU seconds of one key's stream, made with one cipher and added, piece by piece: the least that a mask takes."""
    total, zeros, room = np.zeros(size, np.uint32), memoryview(bytes(PIECE)), memoryview(bytearray(PIECE))
    taken: list[float] = []
    for _ in range(max(20, 20_000_000 // size)):
        begun = time.process_time()
        cipher = Cipher(algorithms.AES256(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor()
        for start in range(0, size, PIECE // 4):
            entries = total[start : start + PIECE // 4]
            cipher.update_into(zeros[: entries.nbytes], room)
            np.add(entries, np.frombuffer(room, np.uint32, entries.size), out=entries)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)


def _hashing(size: int) -> float:
    """CPU seconds of a SHA-256 of so many 32-bit entries and of adding them."""
    body, total, taken = np.ones(size, np.uint32), np.zeros(size, np.uint32), list[float]()
    for _ in range(20):
        begun = time.process_time()
        hashlib.sha256(body.data).digest()
        np.add(total, body, out=total)
        taken.append(time.process_time() - begun)
    return statistics.median(taken)
