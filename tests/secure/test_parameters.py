"""Neighbours and thresholds, next to exact fractions and to rings of which every one is looked at."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import SecureSumError, SettingError
from shoal.secure.graph import Graph
from shoal.secure.parameters import Shape, least, shape

CLIENTS = (100, 300, 1000, 3000, 10_000)
TABLE = {  # percent corrupt, percent that drop out, whether the server may lie: neighbours and threshold
    (5, 5, False): ((12, 6), (24, 14), (30, 17), (32, 19), (34, 20)),
    (5, 5, True): ((16, 11), (38, 27), (52, 37), (58, 41), (62, 44)),
    (5, 10, False): ((16, 6), (28, 14), (36, 19), (40, 21), (42, 22)),
    (5, 10, True): ((26, 16), (52, 34), (78, 52), (86, 57), (96, 64)),
    (10, 30, False): ((34, 11), (66, 26), (88, 36), (100, 41), (108, 44)),
    (10, 30, True): ((72, 42), (186, 109), (414, 247), (624, 373), (778, 465)),
    (20, 10, True): ((42, 32), (94, 70), (140, 104), (166, 123), (184, 136)),
    (33, 10, False): ((42, 32), (78, 55), (102, 72), (114, 80), (126, 88)),
    (33, 10, True): ((54, 44), (130, 103), (218, 171), (270, 211), (310, 242)),
}


@pytest.mark.parametrize(("fractions", "cells"), TABLE.items(), ids=str)
def test_the_table_of_the_design_is_met_in_every_cell(fractions, cells):
    corrupt, dropout, malicious = fractions
    found = [least(n, corrupt=corrupt / 100, dropout=dropout / 100, malicious=malicious) for n in CLIENTS]
    assert found == [Shape(*cell) for cell in cells]


def at_least(hits: int, *, of: int, marked: int, drawn: int) -> Fraction:
    """The probability that of `drawn` clients `hits` or more are among the marked, by counting hands."""
    hands = sum(math.comb(marked, i) * math.comb(of - marked, drawn - i) for i in range(hits, drawn + 1))
    return Fraction(hands, math.comb(of, drawn))


def holds(n: int, corrupt: int, dropped: int, k: int, t: int, *, malicious: bool, security: int, failure: int) -> bool:
    """The three conditions as they are written, in fractions."""
    learns = 2 * t - k if malicious else t  # malicious: t > (k + corrupt neighbours) / 2, or the server has both
    if learns < 1 or n * at_least(learns, of=n, marked=corrupt, drawn=k) > Fraction(1, 2 ** (security + 1)):
        return False
    if n * at_least(k - t + 1, of=n, marked=dropped, drawn=k) > Fraction(1, 2**failure):
        return False
    out = corrupt + dropped
    cuts = Fraction(n * (n - k - 1), 2) * Fraction(math.comb(n - k, out - k) if out >= k else 0, math.comb(n, out))
    return cuts <= Fraction(1, 2 ** (security + 1))


@given(
    st.integers(5, 60),
    st.fractions(0, Fraction(9, 20), max_denominator=20),
    st.fractions(0, Fraction(9, 20), max_denominator=20),
    st.booleans(),
    st.integers(1, 20),
    st.integers(1, 12),
)
@settings(max_examples=80)
def test_the_shape_is_the_first_for_which_the_conditions_hold(n, corrupt, dropout, malicious, security, failure):
    settled = {"malicious": malicious, "security": security, "failure": failure}
    c, d = math.floor(corrupt * n), math.floor(dropout * n)
    pairs = ((k, t) for k in range(2, n - 1, 2) for t in range(2, k + 1))
    first = next((pair for pair in pairs if holds(n, c, d, *pair, **settled)), None)
    if first is None:
        with pytest.raises(SettingError, match="no number of neighbours is enough"):
            least(n, corrupt=float(corrupt), dropout=float(dropout), **settled)
    else:
        assert least(n, corrupt=float(corrupt), dropout=float(dropout), **settled) == Shape(*first)


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize(("n", "corrupt", "dropped", "security", "failure"), [(13, 1, 2, 2, 2), (12, 2, 2, 1, 1)])
def test_what_is_promised_holds_over_all_rings(n, corrupt, dropped, security, failure, malicious):
    """As places on the ring are random, all choices of who is corrupt and who is gone are equally likely."""
    found = least(n, corrupt=corrupt / n, dropout=dropped / n, malicious=malicious, security=security, failure=failure)
    graph = Graph(tuple(map(str, range(n))), found, bytes(32))
    holders = [set(graph.holders(i)) for i in range(n)]
    learns = 2 * found.threshold - found.neighbours if malicious else found.threshold
    insecure = lost = total = 0
    for bad in map(set, itertools.combinations(range(n), corrupt)):
        honest = set(range(n)) - bad
        learned = any(len(holders[i] & bad) >= learns for i in honest)
        for gone in map(set, itertools.combinations(range(n), dropped)):
            total += 1
            insecure += learned or not connected(holders, honest - gone)
            lost += any(len(of - gone) < found.threshold for of in holders)
    assert insecure / total <= 2**-security and lost / total <= 2**-failure


def connected(holders: list[set[int]], left: set[int]) -> bool:
    found, new = set[int](), {min(left)}
    while new:
        found |= new
        new = set().union(*(holders[i] for i in new)) & left - found
    return found == left


@given(st.integers(2, 128), st.data())
def test_up_to_128_clients_all_hold_for_all_and_more_than_half_rebuild(clients, data):
    threshold = data.draw(st.integers(2, clients))
    found = shape(clients, threshold=threshold, corrupt=0.3)
    assert found.neighbours == clients - 1
    assert found.threshold == max(threshold, clients // 2 + 1)
    assert 2 * found.threshold > clients  # two answers for one client would be from two majorities


def uncut(n: int, corrupt: int, dropped: int, k: int, t: int) -> bool:
    """Whether a server that leaves out whom it likes cannot cut the ring, but with a probability of 2**-61."""
    run = at_least(t - k // 2, of=n, marked=corrupt, drawn=k // 2)
    return k > corrupt + dropped or Fraction(n * (n - k - 1), 2) * run**2 <= Fraction(1, 2**61)


SESSIONS = [(129, 110), (200, 134), (1000, 900), (1000, 670), (2000, 1500)]


@pytest.mark.parametrize(("clients", "threshold"), SESSIONS)
def test_above_no_session_has_a_ring_that_the_server_can_cut_and_one_share_less_would_not_do(clients, threshold):
    found = shape(clients, threshold=threshold, corrupt=0.05)
    out = clients // 20, clients - threshold
    for k, t in ((found.neighbours, found.threshold), (found.neighbours, found.threshold - 1)):
        learns = clients * at_least(2 * t - k, of=clients, marked=out[0], drawn=k) <= Fraction(1, 2**61)
        assert (learns and uncut(clients, *out, k, t)) == (t == found.threshold)
    k, t = found.neighbours, found.threshold
    assert clients * at_least(k - t + 1, of=clients, marked=out[1], drawn=k) <= Fraction(1, 2**20)


@pytest.mark.parametrize(("clients", "threshold"), [*SESSIONS, (10_000, 7000)])
def test_above_a_session_has_no_less_than_the_shape_for_drop_outs_by_chance(clients, threshold):
    found = shape(clients, threshold=threshold, corrupt=0.05)
    lost = (clients - threshold) / clients
    weaker = least(clients, corrupt=0.05, dropout=lost, security=40)
    assert found.neighbours >= weaker.neighbours and found.threshold >= weaker.threshold
    assert clients < 1000 or found != weaker  # so few are corrupt among 200 that they could never be enough
    assert 2 * found.threshold > found.neighbours


def test_a_threshold_that_cannot_be_secure_names_the_least_that_is():
    with pytest.raises(SecureSumError, match=r"at least 450 of 1000 clients, 50 of them corrupt.*a threshold of \d+"):
        shape(1000, threshold=450, corrupt=0.05)
    with pytest.raises(SecureSumError) as refused:
        shape(200, threshold=90, corrupt=0.1)
    advised = int(str(refused.value).split()[-3])
    assert shape(200, threshold=advised, corrupt=0.1).neighbours < 199
    with pytest.raises(SecureSumError, match=f"a threshold of {advised} will do"):
        shape(200, threshold=advised - 1, corrupt=0.1)


def test_too_few_clients_are_refused():
    with pytest.raises(SecureSumError, match="a secure sum of 5 clients needs as many and at least 2: here are 4"):
        shape(4, threshold=5, corrupt=0.05)
    with pytest.raises(SecureSumError, match="here are 1"):
        shape(1, threshold=1, corrupt=0.05)


@pytest.mark.parametrize(
    ("settings_", "what"),
    [
        ({"corrupt": 1.0, "dropout": 0.1}, "a fraction of clients is from 0 to under 1, not 1.0"),
        ({"corrupt": 0.1, "dropout": -0.1}, "a fraction of clients is from 0 to under 1, not -0.1"),
        ({"corrupt": 0.1, "dropout": math.nan}, "not nan"),
        ({"corrupt": 0.4, "dropout": 0.4}, "1000 clients of which 0.4 are corrupt and 0.4 drop out"),
    ],
)
def test_fractions_that_cannot_be_are_refused(settings_, what):
    with pytest.raises(SettingError, match=what):
        least(1000, **settings_)


@pytest.mark.parametrize(("neighbours", "threshold"), [(0, 1), (4, 0), (4, 6), (2.5, 1), (True, 1)])
def test_what_is_no_shape_is_refused(neighbours, threshold):
    with pytest.raises(SettingError, match=r"1 neighbour or more|at most 5"):
        Shape(neighbours, threshold)


def test_all_holders_of_a_complete_graph_may_be_needed():
    assert shape(3, threshold=3, corrupt=0.0) == Shape(neighbours=2, threshold=3)
