"""Secrets from shares of which some are wrong, beside the secrets that were shared."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import SecureSumError
from shoal.secure import shamir
from shoal.secure.rebuilding import Wanted, rebuild

HOLDERS = tuple("abcdefgh")
THRESHOLD = 4


def secret_of(dealer: str) -> bytes:
    return hashlib.sha256(dealer.encode()).digest()


def dealt(dealer: str) -> np.ndarray:
    """The shares of every holder."""
    size = shamir.randomness_bytes(1, THRESHOLD)
    drawn = hashlib.shake_256(dealer.encode()).digest(size)
    return shamir.share([secret_of(dealer)], holders=len(HOLDERS), threshold=THRESHOLD, randomness=drawn)[0]


def right(dealer: str, secret: bytes) -> bool:
    return secret == secret_of(dealer)


def fits(dealer: str, holder: str, share: np.ndarray) -> bool:
    return np.array_equal(share, dealt(dealer)[HOLDERS.index(holder)])


def answered(dealers, holders, *, wrong=()):
    """What is wanted, and the rows of shares: those of each dealer together, `wrong` are pairs of dealer and holder."""
    wanted, rows = [], []
    for dealer in dealers:
        places = [HOLDERS.index(holder) for holder in holders]
        wanted.append(
            Wanted(dealer, list(holders), [place + 1 for place in places], [len(rows) + i for i in range(len(places))])
        )
        shares = dealt(dealer)
        for place in places:
            spoiled = (dealer, HOLDERS[place]) in wrong
            rows.append((shares[place] + np.uint32(spoiled)) % np.uint32(shamir.PRIME))
    return wanted, np.array(rows, np.uint32)


def rebuilt(dealers, holders, *, wrong=(), right=right, fits=fits):
    wanted, shares = answered(dealers, holders, wrong=wrong)
    return rebuild(wanted, shares, threshold=THRESHOLD, right=right, fits=fits)


def never(*_: object) -> bool:
    raise AssertionError("this costs time and was not needed")


def test_no_share_is_compared_while_all_secrets_are_right():
    done = rebuilt("xyz", "hbdgf", fits=never)
    assert done.secrets == tuple(secret_of(dealer) for dealer in "xyz")
    assert done.culprits == ()


@given(st.sets(st.tuples(st.sampled_from("xyz"), st.sampled_from(HOLDERS)), max_size=12))
def test_every_secret_is_rebuilt_exactly_if_each_has_enough_good_shares(wrong):
    enough = all(sum((dealer, holder) not in wrong for holder in HOLDERS) >= THRESHOLD for dealer in "xyz")
    used = {(dealer, holder) for dealer, holder in wrong if holder in HOLDERS[:THRESHOLD]}
    if enough:
        done = rebuilt("xyz", HOLDERS, wrong=wrong)
        assert done.secrets == tuple(secret_of(dealer) for dealer in "xyz")
        spoiled = {dealer for dealer, _ in used}
        assert set(done.culprits) == {holder for dealer, holder in wrong if dealer in spoiled}
    else:
        with pytest.raises(SecureSumError, match="good shares of a secret") as caught:
            rebuilt("xyz", HOLDERS, wrong=wrong)
        assert caught.value.culprit in {holder for _, holder in wrong}


def test_a_wrong_share_that_was_not_needed_changes_nothing():
    done = rebuilt("x", HOLDERS, wrong={("x", "h")})
    assert done.secrets == (secret_of("x"),)


def test_too_few_good_shares_say_how_many_and_whose_were_wrong():
    with pytest.raises(
        SecureSumError, match=r"3 good shares of a secret of 'x' came and it takes 4: .* 'a', 'c'"
    ) as caught:
        rebuilt("x", "abcde", wrong={("x", "a"), ("x", "c")})
    assert caught.value.culprit == "a"


def test_a_dealer_whose_shares_all_fit_and_give_another_secret_is_named():
    with pytest.raises(SecureSumError, match="'y' dealt shares of another secret") as caught:
        rebuilt("xyz", HOLDERS, right=lambda dealer, secret: dealer != "y" and right(dealer, secret))
    assert caught.value.culprit == "y"


def test_a_dealer_is_named_also_where_a_holder_was_wrong():
    with pytest.raises(SecureSumError) as caught:
        rebuilt("xy", HOLDERS, wrong={("x", "a")}, right=lambda dealer, secret: dealer != "y" and right(dealer, secret))
    assert caught.value.culprit == "y"


def test_many_who_were_wrong_are_not_all_listed():
    with pytest.raises(SecureSumError, match="'a', 'b', 'c' and 2 more"):
        rebuilt("x", HOLDERS, wrong={("x", holder) for holder in "abcde"})


def test_secrets_may_have_shares_of_different_holders():
    one, first = answered("x", "abcd")
    other, second = answered("y", "efgh")
    moved = [Wanted(w.dealer, w.holders, w.points, [row + len(first) for row in w.rows]) for w in other]
    done = rebuild(one + moved, np.concatenate([first, second]), threshold=THRESHOLD, right=right, fits=never)
    assert done.secrets == (secret_of("x"), secret_of("y"))
