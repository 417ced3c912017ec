"""Shares of secrets, next to polynomials in plain integers."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import SecureSumError
from shoal.secure.shamir import pack, randomness_bytes, rebuild, share, unpack

PRIME = 2**31 - 1
SECRETS = st.one_of(st.binary(min_size=32, max_size=32), st.sampled_from([bytes(32), b"\xff" * 32]))
WRONG = "at least one of them is wrong"


def limbs(secret: bytes) -> list[int]:
    number, found = int.from_bytes(secret, "little"), []
    for _ in range(9):
        number, limb = divmod(number, 2**30)
        found.append(limb)
    return found


def bytes_of(limbs_: list[int]) -> bytes:
    return sum(limb * 2 ** (30 * place) for place, limb in enumerate(limbs_)).to_bytes(32, "little")


def at(points: dict[int, int], x: int) -> int:
    """The value at x of the polynomial through the points (Lagrange)."""
    total = 0
    for here, value in points.items():
        others = [other for other in points if other != here]
        above, below = math.prod(x - other for other in others), math.prod(here - other for other in others)
        total += value * above * pow(below, -1, PRIME)
    return total % PRIME


def drawn(seed: int, secrets: int, threshold: int) -> bytes:
    return random.Random(seed).randbytes(randomness_bytes(secrets, threshold))


@st.composite
def sharings(draw):
    holders = draw(st.integers(1, 12))
    return draw(st.lists(SECRETS, max_size=4)), holders, draw(st.integers(1, holders)), draw(st.integers(0, 2**32))


@given(sharings())
@settings(max_examples=60)
def test_a_share_is_the_value_of_a_polynomial_whose_coefficients_are_the_randomness(sharing):
    secrets, holders, threshold, seed = sharing
    randomness = drawn(seed, len(secrets), threshold)
    shares = share(secrets, holders=holders, threshold=threshold, randomness=randomness)
    assert shares.shape == (len(secrets), holders, 9) and shares.dtype == np.uint32
    draws = [int.from_bytes(randomness[at : at + 8], "little") % PRIME for at in range(0, len(randomness), 8)]
    for i, secret in enumerate(secrets):
        for limb, constant in enumerate(limbs(secret)):
            coefficients = [constant, *draws[9 * i + limb :: 9 * len(secrets)]]
            assert len(coefficients) == threshold
            for holder in range(holders):
                value = sum(factor * (holder + 1) ** power for power, factor in enumerate(coefficients)) % PRIME
                assert shares[i, holder, limb] == value


@given(sharings(), st.data())
@settings(max_examples=60)
def test_as_many_shares_as_the_threshold_or_more_give_the_secret_in_any_order(sharing, data):
    secrets, holders, threshold, seed = sharing
    shares = share(secrets, holders=holders, threshold=threshold, randomness=drawn(seed, len(secrets), threshold))
    count = data.draw(st.integers(threshold, holders))
    chosen = [data.draw(st.permutations(range(holders)))[:count] for _ in secrets]
    points = np.array(chosen, np.int64).reshape(len(secrets), count)
    assert rebuild(points + 1, np.take_along_axis(shares, points[:, :, None], axis=1)) == secrets
    assert rebuild(np.arange(holders) + 1, shares) == secrets
    for secret, places, all_of_it in zip(secrets, chosen, shares, strict=True):
        alone = [at({p + 1: int(all_of_it[p, limb]) for p in places}, 0) for limb in range(9)]
        assert bytes_of(alone) == secret


@pytest.mark.parametrize("threshold", [1, 2, 3, 4, 5])
def test_every_set_of_holders_of_the_threshold_s_size_rebuilds(threshold):
    secrets = [random.Random(i).randbytes(32) for i in range(3)]
    shares = share(secrets, holders=5, threshold=threshold, randomness=drawn(1, 3, threshold))
    for places in itertools.combinations(range(5), threshold):
        assert rebuild(np.array(places) + 1, shares[:, places]) == secrets


@given(first=SECRETS, other=SECRETS, seed=st.integers(0, 2**32), data=st.data())
@settings(max_examples=40)
def test_fewer_shares_than_the_threshold_fit_every_secret_by_exactly_one_draw(first, other, seed, data):
    """The draws are uniform, so each secret is as likely as before to somebody who sees these shares."""
    holders = data.draw(st.integers(2, 7))
    threshold = data.draw(st.integers(2, holders))
    seen = data.draw(st.permutations(range(holders)))[: threshold - 1]
    shares = share([first], holders=holders, threshold=threshold, randomness=drawn(seed, 1, threshold))
    coefficients = []
    for limb, constant in enumerate(limbs(other)):  # the one polynomial through the other secret and what was seen
        points = {0: constant} | {place + 1: int(shares[0, place, limb]) for place in seen}
        coefficients.append(coefficients_of(points)[1:])
    draws = b"".join(row[power].to_bytes(8, "little") for power in range(threshold - 1) for row in coefficients)
    instead = share([other], holders=holders, threshold=threshold, randomness=draws)
    assert np.array_equal(instead[:, seen], shares[:, seen])
    assert np.array_equal(instead, shares) == (first == other)


def coefficients_of(points: dict[int, int]) -> list[int]:
    """Of the polynomial through the points, by Gaussian elimination."""
    size = len(points)
    rows = [[*(pow(x, power, PRIME) for power in range(size)), value] for x, value in points.items()]
    for column in range(size):
        pivot = next(i for i in range(column, size) if rows[i][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        by = pow(rows[column][column], -1, PRIME)
        rows[column] = [entry * by % PRIME for entry in rows[column]]
        for i in range(size):
            if i != column:
                factor = rows[i][column]
                rows[i] = [(a - factor * b) % PRIME for a, b in zip(rows[i], rows[column], strict=True)]
    return [row[-1] for row in rows]


def test_a_draw_of_eight_bytes_is_uniform_modulo_the_prime_but_for_four_values_in_2_to_the_64():
    assert 2**64 % PRIME == 4


@pytest.mark.parametrize("draw", [PRIME - 1, 2**64 - 1, 0], ids=["largest", "all ones", "zero"])
@pytest.mark.parametrize(("holders", "threshold"), [(70, 65), (300, 257)])
def test_sums_of_the_largest_products_are_exact(draw, holders, threshold):
    secrets = [b"\xff" * 32, bytes(32)]
    randomness = draw.to_bytes(8, "little") * (9 * 2 * (threshold - 1))
    shares = share(secrets, holders=holders, threshold=threshold, randomness=randomness)
    for i, secret in enumerate(secrets):
        for holder in (0, 1, holders - 1):
            value = sum((draw if power else limbs(secret)[3]) * (holder + 1) ** power for power in range(threshold))
            assert shares[i, holder, 3] == value % PRIME
    assert rebuild(np.arange(holders - threshold, holders) + 1, shares[:, -threshold:]) == secrets


def test_points_may_be_as_large_as_the_prime_allows():
    polynomial = [[limb, 123_456_789 + place] for place, limb in enumerate(limbs(b"\x5a" * 32))]
    points = [PRIME - 1, PRIME - 2, 2**30]
    shares = np.array([[[(a + b * x) % PRIME for a, b in polynomial] for x in points]], np.uint32)
    assert rebuild(np.array(points), shares) == [b"\x5a" * 32]


@given(SECRETS, st.integers(0, 3), st.integers(0, 8), st.integers(1, PRIME - 1))
def test_a_share_that_was_changed_never_gives_the_secret(secret, place, limb, by):
    shares = share([secret], holders=4, threshold=4, randomness=drawn(3, 1, 4))
    shares[0, place, limb] = (int(shares[0, place, limb]) + by) % PRIME
    try:
        assert rebuild(np.arange(1, 5), shares) != [secret]
    except SecureSumError as error:
        assert WRONG in str(error)


def test_shares_of_no_secret_are_refused():
    """By a limb of more than 30 bits, and by a last one of more than 16: the secret would be longer than 32 bytes."""
    for limb, value in ((0, 2**30), (8, 2**16)):
        shares = np.zeros((2, 3, 9), np.uint32)
        shares[1, :, limb] = value  # a constant polynomial
        with pytest.raises(SecureSumError, match=WRONG):
            rebuild(np.arange(1, 4), shares)
        shares[1, :, limb] = value - 1
        assert rebuild(np.arange(1, 4), shares)[1] == ((value - 1) << 30 * limb).to_bytes(32, "little")


def test_what_are_no_shares_is_refused():
    good = np.zeros((1, 2, 9), np.uint32)
    large = good.copy()
    large[0, 1, 4] = PRIME
    for points, shares, what in [
        ([1, 2], large, "below 2"),
        ([1, 2], good[:, :, :8], "9 numbers"),
        ([1, 2], good[0], "9 numbers"),
        ([1, 1], good, "different points"),
        ([0, 1], good, "different points"),
        ([1, PRIME], good, "different points"),
        (np.empty(0, np.int64), good[:, :0], "different points"),
    ]:
        with pytest.raises(SecureSumError, match=what):
            rebuild(np.array(points), shares)


def test_what_cannot_be_shared_is_refused():
    one = [bytes(32)]
    for secrets, holders, threshold, randomness, what in [
        ([bytes(31)], 3, 2, bytes(72), "32 bytes"),
        ([bytes(32), bytes(33)], 3, 2, bytes(144), "32 bytes"),
        (one, 3, 4, bytes(216), "4 of 3"),
        (one, 3, 0, b"", "0 of 3"),
        (one, 3, 2, bytes(71), "72 random bytes, not 71"),
        (one, 3, 2, bytes(80), "72 random bytes, not 80"),
    ]:
        with pytest.raises(SecureSumError, match=what):
            share(secrets, holders=holders, threshold=threshold, randomness=randomness)


@given(st.lists(st.lists(st.integers(0, PRIME - 1), min_size=9, max_size=9), max_size=5))
def test_packed_shares_come_back(rows):
    shares = np.array(rows, np.uint32).reshape(-1, 9)
    packed = pack(shares)
    assert packed == b"".join(limb.to_bytes(4, "little") for row in rows for limb in row)
    assert np.array_equal(unpack(packed), shares)


def test_bytes_that_are_no_shares_are_refused():
    for packed in (bytes(35), bytes(37), b"\xff" * 36, bytes(36) + (PRIME).to_bytes(4, "little") + bytes(32)):
        with pytest.raises(SecureSumError, match="a share is"):
            unpack(packed)


def test_rows_of_points_that_come_again_give_the_same():
    """Work is shared among equal rows; blocks of rows end anywhere."""
    secrets = [random.Random(i).randbytes(32) for i in range(2200)]
    shares = share(secrets, holders=40, threshold=30, randomness=drawn(5, 2200, 30))
    subsets = np.argsort(np.random.default_rng(0).random((2200, 40)), axis=1)[:, :30]
    subsets[1::7] = subsets[0]
    assert rebuild(subsets + 1, np.take_along_axis(shares, subsets[:, :, None], axis=1)) == secrets
