"""Masks beside AES-CTR one stream at a time and plain sums."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from shoal.secure.masks import LONG, PIECE, TOGETHER, add_masks

DTYPES = [np.uint16, np.uint32, np.uint64]


def key(number: int) -> bytes:
    return hashlib.sha256(b"key %d" % number).digest()


def jobs(count: int) -> list[tuple[bytes, int]]:
    return [(key(i), 1 if i % 3 else -1) for i in range(count)]


def slowly(jobs, value, slots):
    """The same with whole streams from one call each, and Python's integers for signs."""
    value, slots = value.copy(), slots.copy()
    after = (value.nbytes + 15) // 16 * 16
    for secret, sign in jobs:
        cipher = Cipher(algorithms.AES(secret), modes.CTR(bytes(16))).encryptor()
        stream = cipher.update(bytes(after + slots.nbytes)) + cipher.finalize()
        masks = np.frombuffer(stream[: value.nbytes], value.dtype), np.frombuffer(stream[after:], np.uint64)
        value, slots = (value + masks[0], slots + masks[1]) if sign == 1 else (value - masks[0], slots - masks[1])
    return value, slots


def start(size: int, dtype, slots: int):
    random = np.random.default_rng(size + slots)
    return random.integers(0, 2**16, size, dtype=dtype), random.integers(0, 2**64, slots, dtype=np.uint64)


def same(jobs, size: int, dtype, slots: int, *, threads: int) -> None:
    value, more = start(size, dtype, slots)
    expected = slowly(jobs, value, more)
    add_masks(jobs, value, more, threads=threads)
    assert np.array_equal(value, expected[0])
    assert np.array_equal(more, expected[1])


@given(
    size=st.integers(0, 300),
    slots=st.integers(0, 9),
    dtype=st.sampled_from(DTYPES),
    count=st.integers(0, 7),
    threads=st.integers(1, 3),
)
def test_masks_of_short_vectors_are_those_of_whole_streams(size, slots, dtype, count, threads):
    same(jobs(count), size, dtype, slots, threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("over", [-1, 0, 1, 9])
def test_masks_of_long_vectors_are_those_of_whole_streams_for_any_number_of_threads(threads, dtype, over):
    same(jobs(5), 3 * LONG // np.dtype(dtype).itemsize + over, dtype, 3, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("over", [-8, -1, 0, 1, 8])
def test_a_piece_may_end_anywhere_between_entries_and_slots(threads, over):
    same(jobs(2), PIECE // 4 + over, np.uint32, 5, threads=threads)


def test_many_slots_take_pieces_of_their_own():
    same(jobs(2), 7, np.uint16, PIECE // 8 + 3, threads=1)


def test_more_streams_than_are_open_at_once_are_all_added():
    same(jobs(TOGETHER + 5), 33, np.uint32, 1, threads=1)


def test_entries_that_lie_at_odd_places_in_memory_are_masked_in_place():
    body = bytearray(2 * 5 + 8 * 2)
    value, slots = np.frombuffer(body, "<u2", 5), np.frombuffer(body, "<u8", 2, offset=10)
    add_masks(jobs(4), value, slots)
    expected = slowly(jobs(4), np.zeros(5, np.uint16), np.zeros(2, np.uint64))
    assert bytes(body) == expected[0].tobytes() + expected[1].tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_masks_that_are_added_and_subtracted_leave_nothing(threads):
    value, slots = start(1001, np.uint64, 3)
    before = value.copy(), slots.copy()
    there = jobs(6)
    add_masks([*there, *((secret, -sign) for secret, sign in there)], value, slots, threads=threads)
    assert np.array_equal(value, before[0])
    assert np.array_equal(slots, before[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_of_a_masked_vector_is_a_fair_coin(dtype):
    """Chi-square per bit with one degree of freedom, for a contribution that is the same number everywhere."""
    size, width = 40_000, np.dtype(dtype).itemsize * 8
    value, slots = np.full(size, 3, dtype), np.full(size, 5, np.uint64)
    add_masks([(key(1), 1), (key(2), -1)], value, slots)
    for entries, bits in ((value, width), (slots, 64)):
        ones = np.array([np.count_nonzero(entries >> entries.dtype.type(bit) & 1) for bit in range(bits)])
        chi = (ones - size / 2) ** 2 / (size / 4)
        assert chi.max() < 20  # once in 100,000 for one fair coin
        assert 0.5 < chi.mean() < 1.7


def test_a_key_that_is_not_of_32_bytes_is_refused():
    with pytest.raises(ValueError, match="key"):
        add_masks([(bytes(16), 1)], np.zeros(1, np.uint32), np.zeros(0, np.uint64))
