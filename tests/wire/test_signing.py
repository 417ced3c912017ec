"""What is signed: each text can be read in one way only, and its bytes never change."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shoal.wire.signing import (
    check_mac,
    digest_of,
    enroll_bytes,
    hello_bytes,
    mac,
    new_key,
    public_key_of,
    sign,
    to_sign,
    verify,
)

PRIVATE = bytes(range(32))
fields = st.tuples(st.text(max_size=4), st.text(max_size=4), st.integers(0, 300), st.text(max_size=4))


def test_the_bytes_that_are_signed_are_these_for_ever():
    assert to_sign("POST", "/v1/checkin", 7, "ab").hex() == (
        "73686f616c2d31207265717565737400"  # "shoal-1 request" and a zero
        "00000004504f5354"
        "0000000b2f76312f636865636b696e"
        "000000080000000000000007"
        "000000026162"
    )
    assert enroll_bytes("f", "t", "n", b"k").hex() == (
        "73686f616c2d3120656e726f6c6c00" + "0000000166" + "0000000174" + "000000016e" + "000000016b"
    )
    assert hello_bytes("f", "b", "c", "i", b"n").hex() == (
        "73686f616c2d312068656c6c6f00" + "0000000166" + "0000000162" + "0000000163" + "0000000169" + "000000016e"
    )


@given(fields, fields)
def test_two_requests_have_one_text_only_if_they_are_the_same(one, other):
    assert (to_sign(*one) == to_sign(*other)) == (one == other)


def test_no_text_of_one_purpose_is_one_of_another():
    same = ("f", "b", "c")
    texts = [to_sign("f", "b", 0, "c"), enroll_bytes(*same, b"i"), hello_bytes(*same, "i", b"")]
    purposes = [text.split(b"\0")[0] for text in texts]
    assert all(one != other for one, other in combinations(purposes, 2))


def test_a_mac_is_hmac_sha256_and_only_the_right_one_passes():
    text = to_sign("GET", "/", 1, digest_of(b""))
    made = mac(b"k" * 32, text)
    assert made == hmac.new(b"k" * 32, text, hashlib.sha256).hexdigest()
    assert check_mac(b"k" * 32, text, given=made)
    for wrong in ("", made[:-1], made.upper(), made[:-1] + "x", "é" * 64, "\udcff", "\ud800"):
        assert not check_mac(b"k" * 32, text, given=wrong)
    assert not check_mac(b"j" * 32, text, given=made)


def test_a_signature_is_ed25519_and_only_the_right_one_passes():
    signature, public = sign(PRIVATE, b"text"), public_key_of(PRIVATE)
    assert signature == Ed25519PrivateKey.from_private_bytes(PRIVATE).sign(b"text")
    assert verify(public, signature, b"text")
    assert not verify(public, signature, b"another text")
    assert not verify(public_key_of(new_key()), signature, b"text")
    assert not verify(public, bytes([signature[0] ^ 1]) + signature[1:], b"text")


@given(st.binary(max_size=70), st.binary(max_size=70))
def test_bytes_that_are_no_key_or_no_signature_verify_nothing(public, signature):
    assert not verify(public, signature, b"text")


def test_new_keys_differ():
    assert len({new_key() for _ in range(20)}) == 20


def test_a_digest_is_that_of_the_body():
    assert digest_of(b"body") == hashlib.sha256(b"body").hexdigest()


@pytest.mark.parametrize("counter", [-1, 2**64])
def test_a_counter_outside_its_range_is_never_signed(counter):
    with pytest.raises(OverflowError):
        to_sign("GET", "/", counter, "")
