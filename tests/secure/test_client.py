"""A client of a secure sum: what it says is made again here by hand, and what it knew is gone when it ends."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shoal.errors import SecureSumError, SettingError
from shoal.secure import keys
from shoal.secure.messages import encode
from tests.secure.room import STAGES, Room, bits, drawn, reachable, secrets_of, sparse

PRIME = 2**31 - 1
GOLDEN = {
    "advertise": "17ed053b6c804cadccc234af85c159c6",
    "share": "24f9fc78243e29f55eef8a978f62f768",
    "mask": "45734607857b70584284ed9ab91b00fd",
    "confirm": "d96ccd85708bc90213cbbaeb528992ac",
    "answer": "769fb22c0d1083ebb2e41ca496dc9ba6",
    "body": "9c53af78104e756ebb75e8c96165ada9",
}


def rebuilt(shares: dict[int, bytes]) -> bytes:
    """A secret from shares by their points: Lagrange at 0 in Python's integers."""
    secret = 0
    for limb in range(9):
        total = 0
        for point, share in shares.items():
            weight = 1
            for other in shares:
                if other != point:
                    weight = weight * other * pow(other - point, -1, PRIME) % PRIME
            total += weight * int.from_bytes(share[4 * limb : 4 * limb + 4], "little")
        secret |= total % PRIME << 30 * limb
    return secret.to_bytes(32, "little")


def text(purpose: bytes, *fields: bytes) -> bytes:
    return b"shoal-1 secure " + purpose + b"\0" + b"".join(len(one).to_bytes(4, "big") + one for one in fields)


def stream(room: Room, key: bytes) -> list[int]:
    """A mask: the entries, and from the next whole block the slots."""
    width = room.bits // 8
    after = -(-room.size * width // 16) * 16
    made = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(after + 16))
    entries = [made[i * width : (i + 1) * width] for i in range(room.size)]
    return [int.from_bytes(part, "little") for part in (*entries, made[after : after + 8], made[after + 8 :])]


def contribution(room: Room, name: str) -> list[int]:
    return [*map(int, room.value(name)), *map(int, room.slots(name))]


def read(room: Room, body: bytes) -> list[int]:
    width = room.bits // 8
    end = room.size * width
    parts = [body[i : i + width] for i in range(0, end, width)] + [body[i : i + 8] for i in range(end, len(body), 8)]
    return [int.from_bytes(part, "little") for part in parts]


def reduced(room: Room, numbers: list[int]) -> list[int]:
    """Entries modulo 2**bits, slots modulo 2**64."""
    return [number % 2 ** (room.bits if i < room.size else 64) for i, number in enumerate(numbers)]


@pytest.mark.parametrize("width", [16, 32, 64])
def test_a_body_is_the_contribution_and_the_masks_made_by_hand(width: int):
    room = Room(bits=width, size=7).until("confirm")
    secrets = {name: keys.secrets_of(drawn("entropy", name), room.terms, name) for name in room.names}
    mask_keys = {name: X25519PrivateKey.from_private_bytes(bytes(one.mask_key)) for name, one in secrets.items()}
    for place, name in enumerate(room.names):
        total = contribution(room, name)
        own = hmac.digest(bytes(secrets[name].seed), text(b"self", room.context, name.encode()), "sha256")
        total = [a + b for a, b in zip(total, stream(room, own), strict=True)]
        for other, theirs in enumerate(room.names):
            if other != place:
                public = X25519PublicKey.from_public_bytes(mask_keys[theirs].public_key().public_bytes_raw())
                agreed = mask_keys[name].exchange(public)
                pair = text(b"pair", room.context, *sorted((name.encode(), theirs.encode())))
                sign = 1 if place < other else -1
                mask = stream(room, hmac.digest(agreed, pair, "sha256"))
                total = [a + sign * b for a, b in zip(total, mask, strict=True)]
        assert read(room, bytes(room.bodies[name])) == reduced(room, total)
        assert room.sent["mask"][name].body == hashlib.sha256(room.bodies[name]).digest()


def test_answers_take_the_masks_off_the_sum_and_give_the_key_of_one_that_left():
    room = Room().until("answer", lost={"e": "share"})
    for name in "abcd":
        room.do(name)
    own = [0] * 7
    for place, name in enumerate("abcde"):
        points = [one for one in range(4) if one != place][-3:]
        secret = rebuilt({one + 1: room.sent["answer"]["abcd"[one]].shares[place] for one in points})
        if name == "e":
            assert X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw() == (
                room.sent["advertise"]["e"].mask_key
            )
            continue
        digest = text(b"seed", room.context, name.encode(), secret)
        assert hashlib.sha256(digest).digest() == room.sent["share"][name].seed
        mask = stream(room, keys.self_key(secret, room.context, name))
        pair = keys.agree(
            keys.private_key(keys.secrets_of(drawn("entropy", "e"), room.terms, "e").mask_key),
            keys.public_key(room.sent["advertise"][name].mask_key),
            owner=name,
        )
        shared = stream(room, keys.pair_key(pair, room.context, "e", name))
        own = [a + b + c for a, b, c in zip(own, mask, shared, strict=True)]
    masked = [sum(column) for column in zip(*(read(room, bytes(room.bodies[name])) for name in "abcd"), strict=True)]
    plain = [sum(column) for column in zip(*(contribution(room, name) for name in "abcd"), strict=True)]
    assert reduced(room, [a - b for a, b in zip(masked, own, strict=True)]) == reduced(room, plain)


def test_fixed_entropy_gives_these_messages_for_ever():
    room = Room().until("answer", lost={"e": "share"})
    room.do("b")
    digests = {stage: hashlib.sha256(encode(room.sent[stage]["b"])).hexdigest()[:32] for stage in STAGES}
    assert digests | {"body": hashlib.sha256(room.bodies["b"]).hexdigest()[:32]} == GOLDEN


def test_every_message_is_signed_by_the_clients_identity():
    room = Room().until("answer")
    room.do("a")
    identity, context = room.identities["a"].public_key(), room.context
    sent = {stage: room.sent[stage]["a"] for stage in STAGES}
    fields = {
        "advertise": (room.terms.digest, b"a", sent["advertise"].box_key, sent["advertise"].mask_key),
        "shares": (
            context,
            b"a",
            sent["share"].seed,
            b"".join(sent["share"].boxes),
            b"".join(sent["share"].commitments),
        ),
        "masked": (context, b"a", sent["mask"].body),
        "confirm": (context, b"a", bits(range(5), 5)),
        "answer": (context, b"a", b"".join(sent["answer"].shares)),
    }
    for message, (purpose, signed) in zip(sent.values(), fields.items(), strict=True):
        identity.verify(message.signature, text(purpose.encode(), *signed))


def test_an_answer_has_one_share_for_each_client_and_never_both():
    room = Room().until("answer", lost={"b": "share", "e": "share"})
    held = room.held("a")
    shares = room.do("a").shares
    for (name, (seed, key)), share in zip(held.items(), shares, strict=True):
        assert (share == seed, share == key) == ((False, True) if name in "be" else (True, False))


def test_after_its_answer_a_client_has_nothing_left_and_answers_no_second_time():
    room = Room().until("answer", lost={"e": "share"})
    secrets = secrets_of(room, "a")
    first, session = room.do("a"), room.sessions["a"]
    assert session.stage == "done"
    assert not reachable(session) & (secrets | set(first.shares))
    with pytest.raises(SecureSumError, match="is at 'done': it is not the turn of 'answer'"):
        session.answer(room.told["a"])
    assert session.stage == "done"


def test_who_has_contributed_keeps_neither_its_seed_nor_its_mask_key():
    room = Room().until("confirm")
    secrets = keys.secrets_of(drawn("entropy", "a"), room.terms, "a")
    kept = reachable(room.sessions["a"])
    assert not kept & {bytes(secrets.seed), bytes(secrets.mask_key), bytes(secrets.box_key), bytes(secrets.dealing)}
    assert room.sessions["a"]._mask_key is None


def test_the_contribution_itself_is_not_changed():
    room = Room().until("mask")
    value, slots = room.value("a"), room.slots("a")
    room.sessions["a"].mask(room.told["a"], value, slots)
    assert value.tolist() == room.value("a").tolist()
    assert slots.tolist() == room.slots("a").tolist()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("called", STAGES)
def test_stages_come_in_their_order(stage: str, called: str):
    room = Room(count=3).until(stage)
    session, told = room.sessions["a"], room.told["a"]
    if called == stage:
        room.do("a")
        assert session.stage == (*STAGES, "done")[STAGES.index(stage) + 1]
        return
    given = {"advertise": (), "mask": (told, room.value("a"), room.slots("a"))}.get(called, (told,))
    with pytest.raises(SecureSumError, match=f"is at '{stage}': it is not the turn of '{called}'"):
        getattr(session, called)(*given)
    assert session.stage == "aborted"
    assert not reachable(session) & secrets_of(room, "a")


@pytest.mark.parametrize("stage", STAGES)
def test_a_closed_session_has_no_secrets_and_says_nothing_more(stage: str):
    room = Room(count=3).until(stage)
    room.sessions["a"].close()
    room.sessions["a"].close()
    assert not reachable(room.sessions["a"]) & secrets_of(room, "a")
    with pytest.raises(SecureSumError, match="'aborted'"):
        getattr(room.sessions["a"], stage)(*([] if stage == "advertise" else [b""] * (3 if stage == "mask" else 1)))


def test_a_closed_session_that_was_done_stays_done():
    room = Room(count=3).until("answer")
    room.do("a")
    room.sessions["a"].close()
    assert room.sessions["a"].stage == "done"


def test_an_error_of_somebody_elses_ends_the_session_too():
    def sign(data: bytes) -> bytes:
        if b"masked" in data:
            raise OSError("the card is gone")
        return room.identities["a"].sign(data)

    room = Room(count=3)
    room.sessions["a"] = room.session("a", sign=sign)
    room.until("mask")
    with pytest.raises(OSError, match="the card is gone"):
        room.do("a")
    assert room.sessions["a"].stage == "aborted"
    assert not reachable(room.sessions["a"]) & secrets_of(room, "a")


def test_entropy_is_32_bytes():
    with pytest.raises(SettingError, match="32 bytes of entropy, not 16"):
        Room().session("a", entropy=bytes(16))


def test_neighbours_on_a_ring_share_with_each_other_only():
    room = sparse().until("answer", lost={"f": "share", "k": "mask"})
    place = room.names.index("a")
    holders = room.graph.holders(place)
    assert len(room.sent["share"]["a"].boxes) == len(holders) == 4
    assert place not in holders
    answer, held = room.do("a"), room.held("a")
    assert [*answer.shares] == [both[name == "f"] for name, both in held.items()]


def test_masks_on_a_ring_cancel():
    room = sparse().until("confirm")
    left = [sum(column) for column in zip(*(read(room, bytes(body)) for body in room.bodies.values()), strict=True)]
    for name in room.names:
        seed = keys.secrets_of(drawn("entropy", name), room.terms, name).seed
        left = [a - b for a, b in zip(left, stream(room, keys.self_key(seed, room.context, name)), strict=True)]
    plain = [sum(column) for column in zip(*(contribution(room, name) for name in room.names), strict=True)]
    assert reduced(room, left) == reduced(room, plain)
