"""What a client of a secure sum must not accept: each ends its session, names who is to blame, and leaves no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import SecureSumError
from shoal.secure import keys
from shoal.secure.graph import Graph
from shoal.secure.messages import Advertised, Confirmations, Inbox, Survivors, decode, encode
from shoal.secure.parameters import Shape
from shoal.secure.terms import Demand
from tests.secure.room import SPARSE, Room, bits, changed, drawn, sparse, stopped

Change = Callable[[Room, Any], Any]


def put(items: tuple[Any, ...], place: int, item: Any) -> tuple[Any, ...]:
    """The items with another one at a place."""
    return (*items[:place], item, *items[place + 1 :])


def of(name: str, **fields: Any) -> Change:
    """The list of keys with another advertisement of one client."""
    return lambda room, told: changed(
        told, advertisements=tuple(changed(one, **fields) if one.client == name else one for one in told.advertisements)
    )


def signed(room: Room, told: Any, *, box: bytes, mask: bytes, terms: Any = None, by: str = "c") -> Any:
    """The list with other keys of c, and a signature."""
    signature = room.identities[by].sign(keys.advertise_text(terms or room.terms, "c", box, mask))
    return of("c", box_key=box, mask_key=mask, signature=signature)(room, told)


def listed(order: str) -> Change:
    return lambda room, told: changed(told, advertisements=tuple(told.advertisements["abcde".index(x)] for x in order))


def with_a_stranger(room: Room, told: Any) -> Any:
    return changed(told, advertisements=(*told.advertisements, changed(told.advertisements[0], client="x")))


def with_the_keys_of_b(room: Room, told: Any) -> Any:
    other = room.sent["advertise"]["b"]
    return signed(room, told, box=other.box_key, mask=other.mask_key)


ONE, TWO = drawn(1), drawn(2)
LISTS: dict[str, tuple[Change, str, str | None]] = {
    "a client twice": (listed("aabcde"), "not in the order of names, or has a name twice", None),
    "another order": (listed("bacde"), "not in the order of names", None),
    "without the own keys": (listed("bcde"), "has not the keys that this client sent", None),
    "the own keys swapped": (of("a", box_key=drawn(1)), "has not the keys that this client sent", None),
    "the own signature swapped": (of("a", signature=bytes(64)), "has not the keys that this client sent", None),
    "too few": (listed("ab"), "2 clients have advertised keys, and it takes 3", None),
    "nobody": (listed(""), "has not the keys", None),
    "a stranger": (with_a_stranger, "'x', which is not on this client's roster", "x"),
    "a box key of the server's": (of("c", box_key=ONE), "'c' are not signed by it", "c"),
    "a mask key of the server's": (of("c", mask_key=ONE), "'c' are not signed by it", "c"),
    "both keys of the server's": (of("e", box_key=ONE, mask_key=TWO), "'e' are not signed by it", "e"),
    "keys signed by another": (lambda r, m: signed(r, m, box=ONE, mask=TWO, by="d"), "'c' are not signed by it", "c"),
    "keys for another model": (
        lambda r, m: signed(r, m, box=ONE, mask=TWO, terms=changed(r.terms, model=ONE)), "told of other terms", "c",
    ),
    "the keys of another": (with_the_keys_of_b, "'c' has a key that is in the list already", "c"),
    "one key for both": (lambda r, m: signed(r, m, box=ONE, mask=ONE), "'c' has a key that is in the list", "c"),
    "a box key worth nothing": (lambda r, m: signed(r, m, box=bytes(32), mask=ONE), "'c' are worth nothing", "c"),
}  # fmt: skip


@pytest.mark.parametrize("change", LISTS)
def test_a_list_of_keys_with(change: str):
    made, why, culprit = LISTS[change]
    room = Room().until("share")
    error = stopped(room, "a", encode(made(room, decode(room.told["a"], Advertised))))
    assert why in str(error)
    assert error.culprit == culprit


def test_a_mask_key_that_is_worth_nothing_names_its_owner_before_anything_is_masked():
    room = Room().until("share")
    box = room.sent["advertise"]["c"].box_key
    told = signed(room, decode(room.told["a"], Advertised), box=box, mask=bytes(32))
    for name in "abde":
        room.do(name, encode(told))
    room.context = keys.context(room.terms, Shape(4, 3), encode(told))
    room.sent["share"]["c"] = room.sent["share"]["b"]
    room.present["share"] = [*range(5)]
    with pytest.raises(SecureSumError, match="'c' are worth nothing") as caught:
        room.do("a", encode(dealt_by(room, room.inbox("a"), "c", bytes(72))))
    assert caught.value.culprit == "c"
    assert room.sessions["a"].stage == "aborted"
    assert room.bodies == {}


@pytest.mark.parametrize(
    ("demand", "why"),
    [
        (Demand(clients=6), "5 clients have advertised keys, and it takes 6"),
        (
            Demand(threshold=0.61),
            "with 3 of 5 clients, and the owner of this client's data asks for a fraction of 0.61",
        ),
    ],
)
def test_the_owners_demand_is_kept_whatever_the_server_says(demand: Demand, why: str):
    assert why in str(stopped(Room(demand=demand).until("share"), "a"))


def test_a_threshold_that_is_exactly_the_fraction_is_enough():
    room = Room(demand=Demand(threshold=0.6)).until("share")
    room.do("a")
    assert room.sessions["a"].stage == "mask"


INBOXES: dict[str, tuple[Change, str, str | None]] = {
    "not itself": (lambda r, m: changed(m, shared=bits([1, 2, 3, 4], 5)), "does not count this client", None),
    "two clients": (lambda r, m: changed(m, shared=bits([0, 1], 5)), "2 clients have shared, and it takes 3", None),
    "a sixth client": (lambda r, m: changed(m, shared=b"\x3f"), "a bit for one that is not there", None),
    "too long a set": (lambda r, m: changed(m, shared=m.shared + b"\0"), "has 1 bytes, this one has 2", None),
    "a box less": (lambda r, m: changed(m, boxes=m.boxes[1:]), "4 boxes and 5 commitments", None),
    "a box more": (lambda r, m: changed(m, boxes=m.boxes + m.boxes[:1]), "6 boxes and 5 commitments", None),
    "a commitment less": (lambda r, m: changed(m, commitments=m.commitments[1:]), "5 boxes and 4 commitments", None),
    "fewer than it has boxes of": (lambda r, m: changed(m, shared=b"\x0f"), "holds shares of 4 that have shared", None),
    "a box for two": (lambda r, m: changed(m, boxes=put(m.boxes, 1, m.boxes[2])), "shares of 'b' cannot be read", "b"),
    "a damaged box": (lambda r, m: changed(m, boxes=put(m.boxes, 2, bytes(88))), "shares of 'c' cannot be read", "c"),
    "other commitments": (
        lambda r, m: changed(m, commitments=put(m.commitments, 4, m.commitments[0])), "of 'e' are not those that", "e",
    ),
    "shares of too large numbers": (
        lambda r, m: dealt_by(r, m, "d", b"\xff" * 72), "what 'd' dealt is no share", "d",
    ),
}  # fmt: skip


def dealt_by(room: Room, told: Inbox, dealer: str, both: bytes) -> Inbox:
    """The inbox of a, with what a dealer that keeps to nothing put into its box and committed itself to."""
    private = keys.private_key(keys.secrets_of(drawn("entropy", dealer), room.terms, dealer).box_key)
    agreed = keys.agree(private, keys.public_key(room.sent["advertise"]["a"].box_key), owner="a")
    box = keys.seal(keys.box_key(agreed, room.context, dealer, "a"), both, dealer, "a")
    place, commitments = room.names.index(dealer), keys.commitments(both, room.context, dealer, "a")
    return changed(told, boxes=put(told.boxes, place, box), commitments=put(told.commitments, place, commitments))


@pytest.mark.parametrize("change", INBOXES)
def test_an_inbox_with(change: str):
    made, why, culprit = INBOXES[change]
    room = Room().until("mask")
    error = stopped(room, "a", encode(made(room, decode(room.told["a"], Inbox))))
    assert why in str(error)
    assert error.culprit == culprit


@pytest.mark.parametrize(
    ("value", "slots", "why"),
    [
        (np.zeros(6, np.uint32), np.zeros(2, np.uint64), r"has \(5,\) of uint32, not \(6,\) of uint32"),
        (np.zeros(5, np.int32), np.zeros(2, np.uint64), "of uint32, not .* of int32"),
        (np.zeros((5, 1), np.uint32), np.zeros(2, np.uint64), r"not \(5, 1\)"),
        (np.zeros(5, np.uint32), np.zeros(3, np.uint64), r"has \(2,\) of uint64, not \(3,\) of uint64"),
    ],
)
def test_a_contribution_of_another_form_is_not_sent(value: np.ndarray, slots: np.ndarray, why: str):
    room = Room().until("mask")
    with pytest.raises(SecureSumError, match=why):
        room.sessions["a"].mask(room.told["a"], value, slots)
    assert room.sessions["a"].stage == "aborted"


@pytest.mark.parametrize(
    ("survivors", "why"),
    [
        (b"\x1f", "that clients are in the sum of which it said before that they had left"),
        (b"\x0e", "does not count this client among those that are in the sum"),
        (b"\x03", "2 clients are in the sum, and it takes 3"),
        (b"\x2f", "a bit for one that is not there"),
        (b"", "has 1 bytes, this one has 0"),
    ],
)
def test_survivors_that_cannot_be_are_not_confirmed(survivors: bytes, why: str):
    room = Room().until("confirm", lost={"e": "advertise"})
    error = stopped(room, "a", encode(Survivors(survivors)))
    assert why in str(error)
    assert error.culprit is None


def test_the_owners_least_number_of_clients_counts_in_the_sum():
    room = Room(demand=Demand(clients=5)).until("confirm")
    assert "4 clients are in the sum, and it takes 5" in str(stopped(room, "a", encode(Survivors(b"\x0f"))))


def by_b(survivors: bytes, *, context: bytes | None = None) -> Change:
    """The confirmations, with one of b's that is of other survivors or of another session."""

    def change(room: Room, told: Any) -> Any:
        signature = room.identities["b"].sign(keys.confirm_text(context or room.context, "b", survivors))
        return changed(told, signatures=put(told.signatures, 1, signature))

    return change


CONFIRMATIONS: dict[str, tuple[Change, str]] = {
    "too few": (lambda r, m: Confirmations(b"\x06", m.signatures[1:3]), "2 of those who hold shares of this client"),
    "nobody's": (lambda r, m: Confirmations(b"\0", ()), "0 of those who hold shares"),
    "one of who is not in the sum": (
        lambda r, m: Confirmations(b"\x1f", (*m.signatures, bytes(64))), "not in the sum, or hold no shares",
    ),
    "a signature less": (lambda r, m: changed(m, signatures=m.signatures[1:]), "3 signatures of 4 clients"),
    "a signature more": (lambda r, m: changed(m, signatures=m.signatures * 2), "8 signatures of 4 clients"),
    "another's signature": (
        lambda r, m: changed(m, signatures=put(m.signatures, 2, m.signatures[1])), "'c' has not confirmed",
    ),
    "no signature": (lambda r, m: changed(m, signatures=put(m.signatures, 3, bytes(64))), "'d' has not confirmed"),
    "other survivors": (by_b(b"\x1f"), "'b' has not confirmed these survivors: the server told it of others"),
    "another session": (by_b(b"\x0f", context=bytes(32)), "'b' has not confirmed these survivors"),
}  # fmt: skip


@pytest.mark.parametrize("change", CONFIRMATIONS)
def test_no_share_is_given_for(change: str):
    made, why = CONFIRMATIONS[change]
    room = Room().until("answer", lost={"e": "share"})
    assert why in str(stopped(room, "a", encode(made(room, decode(room.told["a"], Confirmations)))))


def test_clients_that_were_told_of_different_survivors_do_not_answer():
    room = Room().until("confirm")
    room.do("a", encode(Survivors(b"\x0f")))
    for name in "bcde":
        room.do(name)
    room.present["confirm"] = [*range(4)]
    for name in "abcd":
        stopped(room, name, encode(room.confirmations(name)))
    assert room.sent["answer"] == {}


def test_a_client_that_was_told_of_another_model_takes_part_with_nobody():
    room = Room()
    room.sessions["a"] = room.session("a", terms=changed(room.terms, model=drawn("other")))
    room.until("share")
    assert stopped(room, "b").culprit == "a"
    assert "it was told of other terms" in str(stopped(room, "a"))


TOLD = {"share": Advertised, "mask": Inbox, "answer": Confirmations}


@settings(max_examples=100)
@given(stage=st.sampled_from([*TOLD]), place=st.integers(0))
def test_a_flipped_bit_in_what_a_client_is_told_ends_its_session(stage: str, place: int):
    room = Room(count=3).until(stage)
    told = bytearray(room.told["b"])
    place %= 8 * len(told)
    told[place // 8] ^= 1 << place % 8
    stopped(room, "b", bytes(told))


def outsider(room: Room, name: str) -> str:
    """Somebody that holds nothing for a client."""
    holders = room.graph.holders(room.names.index(name))
    return next(one for i, one in enumerate(room.names) if i not in holders and one != name)


def test_on_a_ring_a_client_checks_the_signatures_of_its_neighbours():
    room = sparse().until("share")
    outcomes = set()
    for name in room.names[1:]:
        told = encode(of(name, signature=bytes(64))(room, decode(room.told["a"], Advertised)))
        context = keys.context(room.terms, SPARSE, told)
        neighbour = room.names.index(name) in Graph(room.names, SPARSE, context).holders(0)
        room.sessions["a"] = room.session("a")
        room.sessions["a"].advertise()
        if neighbour:
            assert stopped(room, "a", told).culprit == name
        else:
            room.do("a", told)
        outcomes.add(neighbour)
    assert outcomes == {True, False}


def test_on_a_ring_clients_with_different_lists_cannot_read_each_others_shares():
    room = sparse().until("share")
    told = encode(of("f", signature=bytes(64))(room, decode(room.told["a"], Advertised)))
    ring = Graph(room.names, SPARSE, keys.context(room.terms, SPARSE, told))
    name = room.names[min({*range(11)} - {5, *ring.holders(5)})]
    for one in room.names:
        room.do(one, told if one == name else None)
    room.present["share"] = [*range(11)]
    assert "cannot be read" in str(stopped(room, name, encode(room.inbox(name))))


def test_too_few_of_those_who_hold_for_a_client_on_a_ring_end_its_session():
    room = sparse().until("mask")
    holders = room.graph.holders(0)
    left = [one for one in range(11) if one not in holders[:2]]
    told = encode(changed(decode(room.told["a"], Inbox), shared=bits(left, 11)))
    assert "2 of those who hold shares of this client have shared, and it takes 3" in str(stopped(room, "a", told))
    room = sparse().until("confirm")
    left = encode(Survivors(bits([one for one in range(11) if one not in room.graph.holders(0)[1:3]], 11)))
    assert "2 of those who hold shares of this client are in the sum" in str(stopped(room, "a", left))


def test_on_a_ring_only_those_who_hold_for_a_client_confirm_to_it():
    room = sparse().until("answer")
    other = outsider(room, "a")
    there = sorted([*room.graph.holders(0), room.names.index(other)])
    signatures = tuple(room.sent["confirm"][room.names[one]].signature for one in there)
    error = stopped(room, "a", encode(Confirmations(bits(there, 11), signatures)))
    assert "not in the sum, or hold no shares" in str(error)
