"""A bit that flips anywhere in a secure sum: somebody is refused, and the sum is right or there is none."""

from __future__ import annotations

import numpy as np
import pytest

from shoal.errors import SecureSumError
from shoal.secure.messages import Survivors
from shoal.secure.parameters import Shape

from .forgery import at, edit
from .session import SENT, STAGES, TOLD, act, clients, digest, play, transcript


def flip(data, bit):
    """The bytes with one bit flipped, counted from the lowest of the first byte."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("what", [*SENT.values(), "body"])
def test_a_bit_that_flips_anywhere_on_the_way_to_the_server_is_refused_and_the_sum_is_whole(what):
    """Every bit of a message: the server refuses each of them, names the client, and still takes the right one."""
    group = clients(3, size=3, slots=1)
    said, served = [], []

    def line(sent, client, message, body):
        if client == "b" and sent == ("masked" if what == "body" else what):
            for bit in range(8 * len(body if what == "body" else message)):
                came = (message, flip(body, bit)) if what == "body" else (flip(message, bit), body)
                with pytest.raises(SecureSumError) as caught:
                    served[0].receive("b", came[0], body=came[1] or None)
                said.append(caught.value.culprit)
        return message, body

    played = play(group, line=line, opens=lambda stage, played: served.append(played.server))
    assert len(said) >= 8 * group.terms.body_bytes
    assert set(said) == {"b"}
    assert not played.refused
    assert played.result == group.plain(group.names)


@pytest.mark.parametrize("what", ["advertised", "inbox", "confirmations"])
def test_a_bit_that_flips_in_any_byte_on_the_way_to_a_client_ends_its_session(what):
    group = clients(3, size=3, slots=1)
    sent = transcript(group)
    draw = np.random.default_rng(int.from_bytes(digest(what)[:4]))
    for place in range(len(sent[what, "b"])):
        came = {**sent, (what, "b"): flip(sent[what, "b"], 8 * place + int(draw.integers(8)))}
        client = group.client("b")
        with pytest.raises(SecureSumError):
            for stage, told in zip(STAGES, ("", *TOLD.values()), strict=True):
                act(group, client, stage=stage, name="b", told=came.get((told, "b"), b""))
        assert client.stage == "aborted"


def test_whatever_a_client_is_told_of_survivors_there_is_the_right_sum():
    group = clients(3, size=3, slots=1)
    for bits in (b"", *(bytes([one]) for one in range(16)), b"\x80", b"\x07\x00"):
        played = play(group, line=at("survivors", "b", edit(Survivors, lambda _, bits=bits: {"masked": bits})))
        assert len(played.refused) == (bits != b"\x07")
        assert played.result == group.plain(group.names)


def test_bits_that_flip_at_random_in_a_larger_session_with_dropouts_never_make_a_wrong_sum():
    group = clients(7, threshold=4, shape=Shape(4, 3), size=3, slots=1)
    draw = np.random.default_rng(5)
    told = 0
    for _ in range(60):
        what, name = str(draw.choice([*SENT.values(), *TOLD.values()])), str(draw.choice(list(group.names)))
        dropped = {"d": str(draw.choice(STAGES))}
        line = at(what, name, lambda m: flip(m, int(draw.integers(8 * len(m)))))
        played = play(group, dropped=dropped, line=line)
        told += bool(played.said)
        if played.sum is not None:
            assert played.result == group.plain(played.sum.clients)
    assert told > 40  # a client that is gone sends nothing, and does not look at what it is told
