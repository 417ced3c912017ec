"""The server of a secure sum against real clients, honest and not, beside plain integer sums."""

from __future__ import annotations

import hashlib
from itertools import product

import msgspec
import numpy as np
import pytest

from shoal.errors import SecureSumError, SettingError
from shoal.secure import keys, parameters, shamir
from shoal.secure.messages import Advertisement, Answer, Shares, decode, encode
from shoal.secure.parameters import Shape
from shoal.secure.server import ServerSession
from shoal.secure.terms import Demand
from shoal.wire import signing
from tests.secure.session import STAGES, Clients, act
from tests.secure.session import clients as demanding

SPARSE = Shape(neighbours=6, threshold=3)


def clients(count: int, **changes) -> Clients:
    """Clients whose owners demand little: what the server itself insists on is looked at here."""
    return demanding(count, demand=Demand(clients=2, threshold=0.01), **changes)


class Sitting:
    """A session that a test plays stage by stage, and every message that was made in it."""

    def __init__(self, group: Clients, **changes):
        self.group, self.server = group, group.server(**changes)
        self.sessions = {name: group.client(name) for name in group.names}
        self.told = dict.fromkeys(group.names, b"")
        self.made: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self.context = b""

    def make(self, name: str) -> bytes:
        """A client's message of this stage, not yet sent."""
        stage = self.server.stage
        self.made[stage, name] = act(self.group, self.sessions[name], stage=stage, name=name, told=self.told[name])
        return self.made[stage, name][0]

    def send(self, name: str, message: bytes | None = None, stage: str = "") -> None:
        """Sends the client's message of this stage or another one, and its body with it if it is a contribution."""
        stage = stage or self.server.stage
        made, body = (
            self.made[stage, name] if (stage, name) in self.made else (self.make(name), self.made[stage, name][1])
        )
        self.server.receive(name, made if message is None else message, body=body or None)

    def collect(self, *without: str) -> None:
        for name in sorted(self.server.missing - {*without}):
            self.send(name)

    def next(self, *without: str) -> None:
        """Everybody sends but those without; then the stage is closed and those in it are told."""
        self.collect(*without)
        self.server.advance()
        if self.server.stage != "done":
            self.told = {name: self.server.message_for(name) for name in self.server.missing}
        if self.server.stage == "share":
            terms, told = self.group.terms, next(iter(self.told.values()))
            self.context = keys.context(terms, self.shape, told)

    @property
    def shape(self) -> Shape:
        terms = self.group.terms
        return self.group.shape or parameters.shape(len(self.told), threshold=terms.threshold, corrupt=terms.corrupt)

    def until(self, stage: str, without: dict[str, str] | None = None) -> Sitting:
        """Plays until a stage is open; `without` says for clients in which stage they drop out."""
        while self.server.stage != stage:
            self.next(*(name for name, last in (without or {}).items() if last == self.server.stage))
        return self

    def ends_with(self, *names: str) -> None:
        """The session can go on, and gives exactly the sum of these clients."""
        self.until("done")
        done = self.server.result()
        assert done.clients == names
        assert (list(map(int, done.value)), list(map(int, done.slots))) == self.group.plain(names)

    def signed(self, name: str, unsigned, text: bytes) -> bytes:
        """A message with its client's own signature: one that the client itself might send."""
        return encode(msgspec.structs.replace(unsigned, signature=signing.sign(self.group.identity(name), text)))

    def spoil(self, name: str) -> None:
        """The client answers with wrong shares."""
        honest = decode(self.make(name), Answer)
        shares = shamir.unpack(b"".join(honest.shares))
        spoiled = [shamir.pack(share[None]) for share in (shares + np.uint32(1)) % np.uint32(shamir.PRIME)]
        lie = msgspec.structs.replace(honest, shares=tuple(spoiled))
        self.send(name, self.signed(name, lie, keys.answer_text(self.context, lie)))


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("shape", [None, SPARSE])
def test_the_sum_is_that_of_plain_integers(bits, shape):
    group = clients(12, bits=bits, size=7, slots=3, shape=shape)
    sitting = Sitting(group)
    sitting.ends_with(*group.names)
    assert sitting.server.result().value.dtype == np.dtype(f"u{bits // 8}")
    assert sitting.server.result().culprits == ()


@pytest.mark.parametrize("shape", [None, SPARSE])
def test_the_sum_is_exact_whoever_drops_out_in_whatever_stage(shape):
    group = clients(12, shape=shape)
    for first, second in product(STAGES, STAGES):
        sitting = Sitting(group).until("done", {"b": first, "c": second, "k": "mask"})
        kept = {"advertise": False, "share": False, "mask": False, "confirm": True, "answer": True}
        gone = {"k", *(name for name, stage in (("b", first), ("c", second)) if not kept[stage])}
        sitting.ends_with(*(name for name in group.names if name not in gone))


def test_neighbours_that_dropped_out_together_cost_nothing():
    group = clients(12, shape=SPARSE)
    sitting = Sitting(group).until("done", dict.fromkeys("bgk", "mask"))
    sitting.ends_with(*"acdefhijl")


def test_any_number_of_threads_gives_the_same_sum():
    group = clients(5, size=1000, threshold=3)
    for threads in (1, 2, 3):
        Sitting(group, threads=threads).until("done", {"a": "mask"}).ends_with(*"bcde")


def test_a_body_may_be_bytes_or_any_array():
    group = clients(3, size=4, slots=1)
    sitting = Sitting(group).until("mask")
    for name, kind in zip("abc", (bytes, memoryview, lambda body: np.frombuffer(body, np.uint32)), strict=True):
        message, body = sitting.make(name), sitting.made["mask", name][1]
        sitting.server.receive(name, message, body=kind(body), digest=hashlib.sha256(body).digest())
    sitting.ends_with(*"abc")


@pytest.mark.parametrize("stage", STAGES)
def test_a_repeat_of_a_message_is_ignored_in_its_stage_and_after(stage):
    sitting = Sitting(clients(4)).until(stage)
    sitting.send("a")
    sitting.send("a")
    sitting.next()
    sitting.send("a", stage=stage)
    sitting.ends_with(*"abcd")
    sitting.send("a", stage=stage)
    sitting.ends_with(*"abcd")


def refused(sitting: Sitting, client: str, message: bytes, match: str, **more) -> None:
    stage, missing = sitting.server.stage, sitting.server.missing
    with pytest.raises(SecureSumError, match=match) as caught:
        sitting.server.receive(client, message, **more)
    assert caught.value.culprit == client
    assert (sitting.server.stage, sitting.server.missing) == (stage, missing)


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_nobody_invited_is_refused(stage):
    sitting = Sitting(clients(4)).until(stage)
    refused(sitting, "mallory", sitting.make("a"), "unknown")
    sitting.ends_with(*"abcd")


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_of_another_client_is_refused(stage):
    sitting = Sitting(clients(4)).until(stage)
    refused(sitting, "b", sitting.make("a"), "of another client")
    sitting.ends_with(*"abcd")


@pytest.mark.parametrize("stage", STAGES)
def test_a_late_message_is_refused(stage):
    sitting = Sitting(clients(5, threshold=3)).until(stage)
    late = sitting.make("a")
    sitting.next("a")
    body = {"body": sitting.made["mask", "a"][1]} if stage == "mask" else {}
    if stage == "answer":
        refused(sitting, "a", late, "session is over")
    else:
        refused(sitting, "a", late, "was late")
    sitting.until("done")
    refused(sitting, "a", late, "session is over", **body)
    sitting.ends_with(*("abcde" if stage in ("confirm", "answer") else "bcde"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_second_message_is_refused(stage):
    sitting = Sitting(clients(4)).until(stage)
    sitting.send("a")
    other = bytes(sitting.made[stage, "a"][0][:-1]) + b"\0"
    refused(sitting, "a", other, "the first one counts", body=sitting.made[stage, "a"][1] or None)
    sitting.ends_with(*"abcd")


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_of_another_stage_is_refused(stage):
    sitting = Sitting(clients(4)).until(stage)
    earlier = STAGES[STAGES.index(stage) - 1]
    message = sitting.make("a") if stage == "advertise" else sitting.made[earlier, "b"][0]
    if stage == "advertise":
        sitting.next()
        refused(sitting, "b", message, "of another stage")
    else:
        refused(sitting, "a", message, "of another stage")
    sitting.ends_with(*"abcd")


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_of_another_session_is_refused(stage):
    other = Sitting(clients(4, threshold=3)).until(stage)
    other.make("a")
    sitting = Sitting(clients(4, threshold=2)).until(stage)
    message, body = other.made[stage, "a"]
    refused(sitting, "a", message, "of another session", body=body or None)
    sitting.ends_with(*"abcd")


@pytest.mark.parametrize("stage", STAGES)
def test_a_flipped_bit_of_a_message_is_refused_wherever_it_is(stage):
    sitting = Sitting(clients(3, size=1, slots=0)).until(stage)
    message = sitting.make("a")
    body = sitting.made[stage, "a"][1] or None
    for place in range(0, len(message), 5):
        changed = bytearray(message)
        changed[place] ^= 1 << place % 8
        refused(sitting, "a", bytes(changed), "a message of 'a' is refused", body=body)
    sitting.ends_with(*"abc")


def test_a_body_is_the_one_that_was_signed_for():
    sitting = Sitting(clients(3, size=4)).until("mask")
    message, body = sitting.make("a"), sitting.made["mask", "a"][1]
    refused(sitting, "a", message, "has no body")
    refused(sitting, "a", message, "has 32 bytes, this one has 0", body=b"")
    refused(sitting, "a", message, "has 32 bytes, this one has 31", body=body[:-1])
    refused(sitting, "a", message, "not the one that was signed for", body=bytes(len(body)))
    refused(sitting, "a", message, "not the one that was signed for", body=body, digest=bytes(32))
    sitting.ends_with(*"abc")


def advertisement(sitting: Sitting, name: str, box: bytes, mask: bytes) -> bytes:
    text = keys.advertise_text(sitting.group.terms, name, box, mask)
    return sitting.signed(name, Advertisement(name, box, mask, bytes(64)), text)


def test_keys_that_are_there_already_or_are_worth_nothing_are_refused():
    sitting = Sitting(clients(4))
    sitting.send("a")
    taken = decode(sitting.made["advertise", "a"][0], Advertisement)
    new, other = (keys.public_bytes(keys.private_key(bytes([i]) * 32)) for i in (1, 2))
    refused(sitting, "b", advertisement(sitting, "b", new, taken.mask_key), "there already")
    refused(sitting, "b", advertisement(sitting, "b", taken.mask_key, new), "there already")
    refused(sitting, "b", advertisement(sitting, "b", new, new), "there already")
    refused(sitting, "b", advertisement(sitting, "b", bytes(32), new), "worth nothing")
    refused(sitting, "b", advertisement(sitting, "b", other, b"\1" + bytes(31)), "worth nothing")
    sitting.ends_with(*"abcd")


def test_shares_for_another_number_of_holders_are_refused():
    sitting = Sitting(clients(4)).until("share")
    honest = decode(sitting.make("a"), Shares)
    for lie in (
        msgspec.structs.replace(honest, boxes=honest.boxes[1:], commitments=honest.commitments[1:]),
        msgspec.structs.replace(honest, commitments=honest.commitments[1:]),
    ):
        refused(sitting, "a", sitting.signed("a", lie, keys.shares_text(sitting.context, lie)), "4 are to hold")
    sitting.ends_with(*"abcd")


def test_an_answer_has_a_share_of_each_and_nothing_else():
    sitting = Sitting(clients(4)).until("answer", {"d": "share"})
    honest = decode(sitting.make("a"), Answer)
    for shares, match in (
        (honest.shares[1:], "2 shares and holds 3"),
        ((*honest.shares[1:], b"\xff" * 36), r"below 2\*\*31 - 1"),
    ):
        lie = msgspec.structs.replace(honest, shares=shares)
        refused(sitting, "a", sitting.signed("a", lie, keys.answer_text(sitting.context, lie)), match)
    sitting.ends_with(*"abc")


@pytest.mark.parametrize("shape", [None, SPARSE])
@pytest.mark.parametrize("liars", ["a", "bcd", "l"])
def test_wrong_shares_are_named_and_the_sum_is_recovered(shape, liars):
    sitting = Sitting(clients(12, shape=shape)).until("answer", {"f": "mask"})
    for name in liars:
        sitting.spoil(name)
    sitting.ends_with(*"abcdeghijkl")
    assert set(sitting.server.result().culprits) <= set(liars)
    if shape is None and liars != "l":
        assert sitting.server.result().culprits == tuple(liars)


def test_too_many_wrong_shares_stop_the_session_and_name_one_who_sent_them():
    sitting = Sitting(clients(5, threshold=4)).until("answer")
    for name in "bd":
        sitting.spoil(name)
    sitting.collect()
    with pytest.raises(
        SecureSumError, match=r"3 good shares of a secret of 'a' came and it takes 4: .* 'b', 'd'"
    ) as caught:
        sitting.server.advance()
    assert caught.value.culprit == "b"
    assert sitting.server.stage == "aborted"


def dealt(sitting: Sitting, name: str, *, seed: bytes, mask_key: bytes) -> bytes:
    """The Shares of a client that deals other secrets, in boxes that can be opened and with commitments that fit."""
    terms, context = sitting.group.terms, sitting.context
    own = keys.private_key(keys.secrets_of(sitting.group.entropy(name), terms, name).box_key)
    threshold = sitting.shape.threshold
    drawn = hashlib.shake_256(b"dealt").digest(shamir.randomness_bytes(2, threshold))
    shares = shamir.share([seed, mask_key], holders=len(sitting.group.names), threshold=threshold, randomness=drawn)
    boxes, commitments = [], []
    for place, holder in enumerate(sitting.group.names):
        public = decode(sitting.made["advertise", holder][0], Advertisement).box_key
        agreed = keys.agree(own, keys.public_key(public), owner=holder)
        both = shamir.pack(shares[:, place])
        boxes.append(keys.seal(keys.box_key(agreed, context, name, holder), both, name, holder))
        commitments.append(keys.commitments(both, context, name, holder))
    honest = decode(sitting.make(name), Shares)
    lie = msgspec.structs.replace(honest, boxes=tuple(boxes), commitments=tuple(commitments))
    return sitting.signed(name, lie, keys.shares_text(context, lie))


def dealing(**other: bytes) -> Sitting:
    sitting = Sitting(clients(5, threshold=3)).until("share")
    secrets = keys.secrets_of(sitting.group.entropy("c"), sitting.group.terms, "c")
    right = {"seed": bytes(secrets.seed), "mask_key": bytes(secrets.mask_key)}
    sitting.send("c", dealt(sitting, "c", **{**right, **other}))
    return sitting


def test_a_client_that_deals_its_own_secrets_in_its_own_way_is_in_the_sum():
    dealing().ends_with(*"abcde")


@pytest.mark.parametrize(("other", "last"), [("seed", "done"), ("mask_key", "mask")])
def test_a_dealer_of_shares_of_another_secret_is_named_if_it_is_needed(other, last):
    sitting = dealing(**{other: bytes(32)}).until("answer", {"c": last})
    sitting.collect()
    with pytest.raises(SecureSumError, match="'c' dealt shares of another secret") as caught:
        sitting.server.advance()
    assert caught.value.culprit == "c"
    assert sitting.server.stage == "aborted"


@pytest.mark.parametrize(("other", "last"), [("seed", "mask"), ("mask_key", "done")])
def test_a_dealer_of_shares_of_another_secret_does_no_harm_if_that_is_not_needed(other, last):
    names = "abde" if last == "mask" else "abcde"
    dealing(**{other: bytes(32)}).until("done", {"c": last}).ends_with(*names)


@pytest.mark.parametrize(
    ("stage", "sentence"),
    [
        ("advertise", "3 clients advertised keys and it takes 4"),
        ("share", "3 clients shared their secrets and it takes 4"),
        ("mask", "3 clients contributed and it takes 4"),
        ("confirm", "3 clients confirmed the survivors and it takes 4"),
        ("answer", "3 clients answered and it takes 4"),
    ],
)
def test_too_few_in_a_stage_stop_the_session_and_are_counted(stage, sentence):
    sitting = Sitting(clients(6, threshold=4)).until(stage)
    sitting.collect("a", "b", "f")
    with pytest.raises(SecureSumError, match=sentence):
        sitting.server.advance()
    assert sitting.server.stage == "aborted"
    assert sitting.server.missing == frozenset()
    for act_again in (sitting.server.advance, sitting.server.result, lambda: sitting.server.message_for("c")):
        with pytest.raises(SecureSumError, match=r"aborted|was stopped: 3 clients"):
            act_again()
    refused(sitting, "a", b"", "was stopped: 3 clients")


def test_half_of_all_clients_is_not_enough_whatever_the_threshold_says():
    sitting = Sitting(clients(6, threshold=2)).until("mask")
    sitting.collect(*"abc")
    with pytest.raises(SecureSumError, match="3 clients contributed and it takes 4"):
        sitting.server.advance()


@pytest.mark.parametrize(
    ("stage", "did"),
    [("share", "shared"), ("mask", "contributed"), ("confirm", "confirmed"), ("answer", "answered")],
)
def test_a_client_with_too_few_holders_left_stops_the_session(stage, did):
    sitting = Sitting(clients(12, shape=Shape(neighbours=4, threshold=4))).until(stage)
    sitting.collect("g")
    with pytest.raises(SecureSumError, match=rf"3 of the clients that hold the shares of one {did}.* and it takes 4"):
        sitting.server.advance()


def test_nobody_is_told_anything_before_keys_are_there_and_nobody_who_is_out():
    sitting = Sitting(clients(4))
    with pytest.raises(SecureSumError, match="is the first"):
        sitting.server.message_for("a")
    with pytest.raises(SecureSumError, match="not done"):
        sitting.server.result()
    sitting.next("a")
    with pytest.raises(SecureSumError, match="'a' is not in this stage"):
        sitting.server.message_for("a")
    sitting.ends_with(*"bcd")
    with pytest.raises(SecureSumError, match="session is over"):
        sitting.server.message_for("b")
    with pytest.raises(SecureSumError, match="no stage to close"):
        sitting.server.advance()
    sitting.ends_with(*"bcd")


def test_missing_are_those_who_have_not_sent_yet():
    sitting = Sitting(clients(4)).until("share", {"d": "advertise"})
    assert sitting.server.missing == {"a", "b", "c"}
    sitting.send("b")
    assert sitting.server.missing == {"a", "c"}


def test_a_session_has_identities_for_all_and_room_for_its_threshold():
    group = clients(3, threshold=3)
    with pytest.raises(SettingError, match="no public key is known of 'z'"):
        ServerSession(group.terms, invited=["a", "b", "z"], roster=group.roster)
    with pytest.raises(SettingError, match="a threshold of 3 is for 3 to 100000 clients, and 2 are invited"):
        ServerSession(group.terms, invited=["a", "b"], roster=group.roster)


def test_a_shape_that_the_clients_do_not_fit_stops_the_session():
    sitting = Sitting(clients(4, shape=Shape(neighbours=3, threshold=3)))
    sitting.collect("a")
    with pytest.raises(SecureSumError, match="3 neighbours need 4 clients"):
        sitting.server.advance()
    assert sitting.server.stage == "aborted"
