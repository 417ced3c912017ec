"""The published vectors: they are what the code makes, and a second implementation makes the same of them."""

from __future__ import annotations

import json
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..vectors import secure
from . import twin


@cache
def vectors():
    return json.loads(secure.PATH.read_text("utf-8"))


def names_of(part):
    return [one["name"] for one in vectors()[part]]


class Record:
    """A published session, parsed by the twin."""

    def __init__(self, name):
        self.record = next(one for one in vectors()["sessions"] if one["name"] == name)
        digests = {"session", "model", "plan"}
        self.terms = {k: bytes.fromhex(v) if k in digests else v for k, v in self.record["terms"].items()}
        self.bodies = {name: bytes.fromhex(body) for name, body in self.record["bodies"].items()}
        advertised = self.sent("advertised")
        (same,) = set(advertised.values())
        count = len(twin.unpacked(same)[1])
        complete = count - 1, max(self.terms["threshold"], count // 2 + 1)
        self.session = twin.Session(self.terms, self.record["shape"] or complete, same)
        self.draws = {
            name: {key: bytes.fromhex(value) for key, value in drawn.items()}
            for name, drawn in vectors()["draws"][self.session.terms_digest.hex()].items()
        }

    def sent(self, what):
        """The messages of a kind, by whom or for whom they are."""
        found = [one for one in self.record["messages"] if one["message"] == what]
        return {one["client"]: bytes.fromhex(one["bytes"]) for one in found}

    def clients(self):
        return {name: twin.Client(self.draws[name]["entropy"], self.terms, name) for name in self.session.names}

    def number(self, name):
        return self.session.names.index(name)


@pytest.fixture(params=names_of("sessions"))
def record(request):
    return Record(request.param)


def test_the_vectors_are_what_the_code_makes():
    assert secure.PATH.read_text("utf-8") == secure.text(), (
        "write them again with  python -m tests.vectors.secure --write"
    )


def test_the_twin_makes_every_key(record):
    for name, client in record.clients().items():
        _, client_name, box_key, mask_key, _ = twin.unpacked(record.sent("advertisement")[name])
        assert (client_name, box_key, mask_key) == (name, *client.public_keys())


def test_the_twin_deals_the_same_shares_in_the_same_boxes(record):
    for name, message in record.sent("shares").items():
        _, _, seed, boxes, commitments, _ = twin.unpacked(message)
        assert record.clients()[name].shares(record.session) == (seed, boxes, commitments)


def test_an_inbox_has_the_boxes_for_its_client_of_those_who_shared(record):
    dealt = {record.number(name): twin.unpacked(message) for name, message in record.sent("shares").items()}
    for name, message in record.sent("inbox").items():
        _, shared, boxes, commitments = twin.unpacked(message)
        own = record.number(name)
        assert twin.chosen(shared) == sorted(dealt)
        dealers = [dealer for dealer in record.session.holders(own) if dealer in dealt]
        places = [record.session.holders(dealer).index(own) for dealer in dealers]
        assert boxes == [dealt[dealer][3][place] for dealer, place in zip(dealers, places, strict=True)]
        assert commitments == [dealt[dealer][4][place] for dealer, place in zip(dealers, places, strict=True)]


def test_the_twin_masks_contributions_to_the_same_bytes(record):
    for name, message in record.sent("masked").items():
        shared = twin.chosen(twin.unpacked(record.sent("inbox")[name])[1])
        contribution = record.session.entries(record.draws[name]["contribution"])
        body = record.clients()[name].masked(record.session, shared, contribution)
        assert body == record.bodies[name]
        assert twin.sha256(body) == twin.unpacked(message)[2]
        assert body != record.draws[name]["contribution"]


def test_the_twin_answers_with_the_same_shares(record):
    (survivors,) = {twin.unpacked(message)[1] for message in record.sent("survivors").values()}
    shared = {record.number(name) for name in record.sent("shares")}
    for name, message in record.sent("answer").items():
        own = record.number(name)
        expected = []
        for dealer in record.session.holders(own):
            if dealer in shared:
                holders = record.session.holders(dealer)
                both = record.clients()[record.session.names[dealer]].dealt(record.session)[holders.index(own)]
                expected.append(both[:36] if dealer in twin.chosen(survivors) else both[36:])
        assert twin.unpacked(message)[2] == expected


def test_the_twin_takes_the_masks_off_and_finds_the_plain_sum(record):
    session = record.session
    (survivors,) = {twin.unpacked(message)[1] for message in record.sent("survivors").values()}
    answers = {record.number(name): twin.unpacked(message)[2] for name, message in record.sent("answer").items()}
    bodies = {record.number(name): body for name, body in record.bodies.items()}
    shared = {record.number(name) for name in record.sent("shares")}
    total = twin.unmasked(session, shared, twin.chosen(survivors), bodies, answers)
    plain = [0] * session.terms["size"], [0] * session.terms["slots"]
    for client in twin.chosen(survivors):
        plain = session.added(plain, session.entries(record.draws[session.names[client]]["contribution"]), 1)
    assert total == plain
    assert session.body(*total) == bytes.fromhex(record.record["sum"]["bytes"])
    assert [session.names[client] for client in twin.chosen(survivors)] == record.record["sum"]["clients"]


def test_every_message_of_a_client_is_signed_by_it_for_this_session_and_purpose(record):
    survivors = {twin.unpacked(message)[1] for message in record.sent("survivors").values()}
    for what in ("advertisement", "shares", "masked", "confirmation", "answer"):
        for name, message in record.sent(what).items():
            _, *fields, signature = twin.unpacked(message)
            identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vectors()["identities"][name]))
            told = [*survivors] if what == "confirmation" else []
            signed = twin.signed_text(what, record.session, [*fields, *told])
            twin.check_signature(identity.public_key().public_bytes_raw(), signature, signed)


def test_confirmations_are_signatures_of_a_clients_holders(record):
    for name, message in record.sent("confirmations").items():
        _, confirmed, signatures = twin.unpacked(message)
        sent = {record.number(one): twin.unpacked(data)[2] for one, data in record.sent("confirmation").items()}
        signers = twin.chosen(confirmed)
        assert set(signers) <= set(record.session.holders(record.number(name)))
        assert len(signers) >= record.session.threshold
        assert signatures == [sent[signer] for signer in signers]


@pytest.mark.parametrize("failure", vectors()["failures"], ids=lambda one: one["name"])
def test_every_failure_is_told_in_a_sentence_or_does_no_harm(failure):
    said = [one["error"] for one in (*failure["errors"], *failure["besides"])]
    assert all(len(sentence) > 10 and sentence.isprintable() for sentence in said if sentence)
    if failure["sum"] is None:
        assert any(said)
