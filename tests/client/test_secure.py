"""A site in secure sums: what it sends hides among others', and a server that lies is given nothing more."""

from __future__ import annotations

import hashlib
from datetime import datetime

import jax
import msgspec
import numpy as np
import pytest

import shoal
from shoal import models
from shoal.algorithms import open_round, start
from shoal.client import secure, work
from shoal.client.events import Opened, Refused, Withheld
from shoal.client.policy import Policy
from shoal.client.roster import write_roster
from shoal.secure import keys
from shoal.secure.bitmap import bitmap
from shoal.secure.contribution import form_of, to_ring
from shoal.secure.messages import (
    Advertised,
    Advertisement,
    Confirmation,
    Confirmations,
    Inbox,
    Survivors,
    decode,
    encode,
)
from shoal.wire.payloads import pack_tree
from shoal.wire.signing import new_key, public_key_of, sign
from tests.client.peers import Peers, packed, terms_of
from tests.client.server import Refusal, cut
from tests.client.site import COLUMNS, info, task

CHAIN = shoal.Clip(0.5) >> shoal.Quantize(1e-5) >> shoal.SecureSum(3) >> shoal.Mean()
PLAN = shoal.Plan(shoal.FedAvg(models.logistic(4), epochs=2, batch_size=4, aggregation=CHAIN), rounds=3)
DATA = work.prepared(PLAN.algorithm, COLUMNS, name="a")
CONTAINER = pack_tree(
    jax.tree.map(np.asarray, open_round(PLAN.algorithm, start(PLAN.algorithm, shoal.Key.from_seed(0))))
)
PAYLOAD = work.turn(PLAN.algorithm, CONTAINER, DATA, key=(1, 0), state=None).payload
NOTES = {name: note.size for name, note in PAYLOAD.notes.items()}
FORM = form_of(PLAN.algorithm.aggregation, PLAN.algorithm.layout, notes=NOTES, clients=4)
STAGES = ("advertise", "share", "mask", "confirm", "answer")


def begun(server, site, *, silent="", roster=True, **changed):
    """A task with a secure sum of four sites, on the server and in the site's roster."""
    given = task(server, plan=PLAN)
    terms = terms_of(PLAN, given, CONTAINER, notes=NOTES)
    peers = Peers(terms, key=public_key_of(site.home.private_key), silent=silent)
    told = msgspec.structs.replace(terms, **changed)
    server.runs, server.sums = [info(PLAN)], {given.task: peers}
    server.tasks = [msgspec.structs.replace(given, secure=packed(told))]
    if roster:
        write_roster(site.home.folder / "roster.toml", peers.roster)
    return peers


def said(server):
    """The stages that the server heard of."""
    return [stage for stage in STAGES if stage in next(iter(server.sums.values())).told]


def test_the_sum_has_what_a_simulated_client_sends_and_the_server_sees_none_of_it(server, site):
    peers = begun(server, site)
    site.steps(2)
    value, slots = to_ring(PAYLOAD, FORM)
    own = peers.own()
    assert own[0].tobytes() == value.tobytes() and own[1].tobytes() == slots.tobytes()
    assert value.tobytes() not in peers.body and np.count_nonzero(value) > 2
    assert site.settled() == [("r1-0-0-0", "counted")]
    assert [str(event) for event in site.told(Opened)] == ["run study r1, round 1: the sum of 4 sites was opened"]
    assert site.told(Withheld) == []


def test_the_ledger_has_every_byte_that_left_and_says_that_the_result_was_masked(server, site):
    peers = begun(server, site)
    site.steps(2)
    with shoal.Ledger(site.home.folder / "ledger.db") as ledger:
        entries = list(ledger.entries())[1:]
        assert ledger.past(datetime.now()).bytes_today == sum(entry.bytes for entry in entries)
    assert [entry.kind for entry in entries] == ["keys", "keys", "result", "verdict", "keys", "keys"]
    sent = {stage: len(message) for stage, message in peers.told.items()}
    assert [entry.bytes for entry in entries] == [
        sent["advertise"], sent["share"], sent["mask"] + len(peers.body), 0, sent["confirm"], sent["answer"]
    ]  # fmt: skip
    assert entries[0].sha256 == hashlib.sha256(peers.told["advertise"]).hexdigest()
    assert entries[2].detail.startswith("masked: 5 integers for Clip(norm=0.5)")
    assert entries[2].detail.endswith("all of it shows only in the sum of 3 sites or more")


@pytest.mark.parametrize(("silent", "clients"), [("d", 3), ("", 4)])
def test_sites_that_never_come_are_left_out_as_long_as_enough_are_there(server, site, silent, clients):
    peers = begun(server, site, silent=silent)
    site.steps(2)
    assert [event.clients for event in site.told(Opened)] == [clients]
    assert peers.own()[0].tobytes() == to_ring(PAYLOAD, FORM)[0].tobytes()


OTHER = b"x" * 32


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"federation": "another"}, "in its federation"),
        ({"run": "r2"}, "in its run"),
        ({"round": 1}, "in its round"),
        ({"model": OTHER}, "in its model"),
        ({"plan": OTHER}, "in its plan"),
        ({"size": 6}, "in its size"),
        ({"threshold": 2}, "in its threshold"),
        ({"bits": 16}, "16 bits, in which the sum of this plan does not fit"),
        ({"slots": 2}, "in its slots"),
    ],
)
def test_terms_that_the_plan_does_not_give_end_it_before_anything_is_sent(server, site, changed, why):
    begun(server, site, **changed)
    site.steps(2)
    assert why in server.declined["r1-0-0-0"].message
    assert said(server) == [] and server.results == {}
    assert [kind for kind, _, _ in site.ledger()] == ["enroll", "decline"]


def test_a_server_that_wants_a_masked_plan_without_masks_gets_nothing(server, site):
    begun(server, site)
    for given, why in ((None, "the server began none"), (b"\x91", "is damaged")):
        server.tasks = (
            [msgspec.structs.replace(server.tasks[0], secure=given)]
            if server.tasks
            else [msgspec.structs.replace(task(server, "r1-0-0-1", plan=PLAN), secure=given)]
        )
        name = server.tasks[0].task
        site.steps(2)
        assert why in server.declined[name].message
    assert server.results == {} and said(server) == []


def substituted(peers):
    """The server puts its own mask key in the place of b's, and has nobody's signature for it."""

    def lie(message):
        everybody = list(decode(message, Advertised).advertisements)
        everybody[1] = msgspec.structs.replace(everybody[1], mask_key=b"\x09" + bytes(31))
        return encode(Advertised(tuple(everybody)))

    return lie


def played(peers):
    """The server signs b's keys with a key of its own."""

    def lie(message):
        everybody = list(decode(message, Advertised).advertisements)
        box, mask = b"\x05" + bytes(31), b"\x06" + bytes(31)
        signature = sign(new_key(), keys.advertise_text(peers.terms, "b", box, mask))
        everybody[1] = Advertisement("b", box, mask, signature)
        return encode(Advertised(tuple(everybody)))

    return lie


def unknown(peers):
    """The server adds a site that nobody knows."""

    def lie(message):
        everybody = decode(message, Advertised).advertisements
        private = new_key()
        box, mask = b"\x05" + bytes(31), b"\x06" + bytes(31)
        signature = sign(private, keys.advertise_text(peers.terms, "z", box, mask))
        return encode(Advertised((*everybody, Advertisement("z", box, mask, signature))))

    return lie


def alone(peers):
    """The server leaves everybody else but b out."""
    return lambda message: encode(Advertised(decode(message, Advertised).advertisements[:2]))


def without_us(peers):
    """The server says that the site's own keys have not come."""
    return lambda message: encode(Advertised(decode(message, Advertised).advertisements[1:]))


def damaged(peers):
    """A box is not the one that b sealed."""

    def lie(message):
        told = decode(message, Inbox)
        boxes = list(told.boxes)
        boxes[1] = bytes(len(boxes[1]))
        return encode(msgspec.structs.replace(told, boxes=tuple(boxes)))

    return lie


def few_shared(peers):
    """The server says that only two have shared."""
    return lambda message: encode(msgspec.structs.replace(decode(message, Inbox), shared=bitmap((0, 1), 4)))


@pytest.mark.parametrize(
    ("stage", "lie", "why"),
    [
        ("advertise", substituted, "'b'"),
        ("advertise", played, "'b'"),
        ("advertise", unknown, "'z', which is not on this client's roster"),
        ("advertise", alone, "2 clients have advertised keys, and it takes 3"),
        ("advertise", without_us, "has not the keys that this client sent"),
        ("share", damaged, "'b'"),
        ("share", few_shared, "2 clients have shared, and it takes 3"),
        ("advertise", lambda peers: lambda message: message[:-1], "this is no Advertised"),
    ],
)
def test_a_server_that_lies_about_keys_gets_no_contribution(server, site, stage, lie, why):
    peers = begun(server, site)
    peers.lies[stage] = lie(peers)
    site.steps(2)
    assert why in server.declined["r1-0-0-0"].message
    assert server.results == {} and "mask" not in said(server)
    assert site.settled() == [("r1-0-0-0", "declined")]


def others(peers):
    """The server tells this site of three survivors, and the others of four."""

    def confirmed(message):
        own = decode(peers.told["confirm"], Confirmation).signature
        return encode(Confirmations(bitmap((0, 1, 2), 4), (own, *decode(message, Confirmations).signatures[:2])))

    peers.lies["confirm"] = confirmed
    return lambda message: encode(Survivors(bitmap((0, 1, 2), 4)))


def two(peers):
    """The server says that the sum has two contributions."""
    return lambda message: encode(Survivors(bitmap((0, 1), 4)))


def of_others(peers):
    """The server says that the site's own contribution is not in the sum."""
    return lambda message: encode(Survivors(bitmap((1, 2, 3), 4)))


def one_short(peers):
    """The server has the signatures of two."""

    def lie(message):
        told = decode(message, Confirmations)
        return encode(Confirmations(bitmap((1, 2), 4), told.signatures[:2]))

    return lie


@pytest.mark.parametrize(
    ("stage", "lie", "why", "heard"),
    [
        ("mask", others, "'b' has not confirmed these survivors", "confirm"),
        ("mask", two, "2 clients are in the sum, and it takes 3", "mask"),
        ("mask", of_others, "does not count this client", "mask"),
        ("confirm", one_short, "2 of those who hold shares of this client have confirmed", "confirm"),
    ],
)
def test_a_server_that_lies_about_survivors_is_given_no_share(server, site, stage, lie, why, heard):
    peers = begun(server, site)
    peers.lies[stage] = lie(peers)
    site.steps(2)
    assert [why in event.why for event in site.told(Withheld)] == [True]
    assert said(server)[-1] == heard
    assert "shares of secrets" not in str(site.ledger())


KILLED = ["client-begun-after", "client-trained-before", "client-trained-after", "client-sent-before"]


class Killed(BaseException):
    """The agent's process ends here."""


def killing(where):
    def point(name):
        if name == where:
            raise Killed(name)

    return point


@pytest.mark.parametrize("where", KILLED)
def test_an_agent_that_is_restarted_in_mid_session_gives_its_task_back(server, site, where):
    begun(server, site)
    with pytest.raises(Killed):
        site.steps(2, killing(where))
    site.steps(2)
    assert server.declined["r1-0-0-0"].reason == "interrupted"
    assert "gone with the agent's process" in server.declined["r1-0-0-0"].message
    assert server.results == {}
    assert site.settled() == [("r1-0-0-0", "declined")]


def test_a_result_that_had_arrived_before_a_restart_stays_counted_and_others_open_it(server, site):
    peers = begun(server, site)
    with pytest.raises(Killed):
        site.steps(2, killing("client-sent-after"))
    site.steps(2)
    assert site.settled() == [("r1-0-0-0", "counted")]
    assert said(server) == ["advertise", "share", "mask"]
    assert site.ledger()[-1] == ("verdict", "r1-0-0-0", "counted")
    finish_without(peers)
    assert peers.own()[0].tobytes() == to_ring(PAYLOAD, FORM)[0].tobytes()


def finish_without(peers):
    """The others open the sum."""
    for stage in ("confirm", "answer"):
        peers.server.advance()
        for name, session in peers.sessions.items():
            peers.server.receive(name, getattr(session, stage)(peers.server.message_for(name)))
    peers.server.advance()


def test_no_secret_is_on_the_disk_or_in_what_an_agent_says(server, site, monkeypatch):
    peers = begun(server, site)
    drawn = []
    monkeypatch.setattr(
        secure.os, "urandom", lambda count: drawn.append(hashlib.sha256(b"%d" % len(drawn)).digest()) or drawn[-1]
    )
    with site.agent(on_disk := Watching(site.home.folder)) as agent:
        for _ in range(2):
            agent.step()
        on_disk("end")
    assert len(drawn) == 1
    secrets = keys.secrets_of(drawn[0], peers.terms, "a")
    value = to_ring(PAYLOAD, FORM)[0].tobytes()
    hidden = [
        drawn[0],
        bytes(secrets.seed),
        bytes(secrets.mask_key),
        bytes(secrets.box_key),
        bytes(secrets.dealing),
        value,
    ]
    assert peers.body in on_disk.seen  # so that it would have been found
    for secret in hidden:
        assert secret not in on_disk.seen
        assert secret.hex().encode() not in on_disk.seen
        assert secret.hex() not in str(site.events)


class Watching:
    """Everything that was in a folder at any time when something became durable."""

    def __init__(self, folder):
        self.folder, self.seen = folder, b""

    def __call__(self, name):
        self.seen += b"".join(path.read_bytes() for path in self.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("stage", [1, 2, 3, 4, 5])
def test_a_message_whose_answer_is_lost_is_said_again(server, site, stage):
    begun(server, site)
    server.faults["POST .*/secure"] = [*[lambda: None] * (stage - 1), ("after", cut), cut]
    site.steps(2)
    assert site.settled() == [("r1-0-0-0", "counted")]
    assert len(site.told(Opened)) == 1
    assert len([kind for kind, _, _ in site.ledger() if kind == "keys"]) == 4


def test_a_round_that_is_over_while_keys_are_agreed_on_is_dropped(server, site):
    begun(server, site)
    server.sums = {}
    site.steps(2)
    assert site.settled() == [("r1-0-0-0", "cancelled")]
    assert server.declined == {}


def test_a_sum_that_is_over_before_its_end_is_told(server, site):
    begun(server, site)

    def over():
        raise Refusal(409, "secure-over", "this round's secure sum is over")

    server.faults["POST .*/secure"] = [lambda: None, lambda: None, over]
    site.steps(2)
    assert site.settled() == [("r1-0-0-0", "counted")]
    assert [event.why for event in site.told(Withheld)] == ["this round's secure sum is over"]


def test_while_others_are_waited_for_the_same_is_said_again(server, site, monkeypatch):
    monkeypatch.setattr(secure, "IDLE_S", 0.01)
    peers = begun(server, site)
    peers.held.clear()
    count = [0]

    def counted():
        count[0] += 1
        if count[0] == 3:
            peers.held.set()

    server.faults["POST .*/secure"] = [counted] * 3
    site.steps(2)
    assert len(site.told(Opened)) == 1
    assert len([kind for kind, _, _ in site.ledger() if kind == "keys"]) == 4


def test_an_agent_that_is_stopped_while_it_waits_for_keys_gives_its_task_back(server, site, monkeypatch):
    monkeypatch.setattr(secure, "IDLE_S", 0.01)
    peers = begun(server, site)
    peers.held.clear()
    site.options["grace_s"] = 0.05
    with site.agent() as agent:
        server.faults["POST .*/secure"] = [agent.stop]
        agent.run()
    assert server.declined["r1-0-0-0"].reason == "interrupted"
    assert server.results == {}


def test_without_a_roster_a_secure_sum_is_refused_with_what_to_bring(server, site):
    begun(server, site, roster=False)
    site.steps(2)
    assert ["--roster FILE" in str(event) for event in site.told(Refused)] == [True]
    assert said(server) == [] and server.results == {}


def test_the_owner_of_the_data_may_ask_for_more_sites_than_the_plan(server, site):
    site.options["policy"] = Policy(allow="any", minimum_cohort=4)
    server.runs = [info(PLAN, minimum_cohort=4)]
    begun(server, site, silent="d")
    server.runs = [info(PLAN, minimum_cohort=4)]
    site.steps(2)
    assert "3 clients have advertised keys, and it takes 4" in server.declined["r1-0-0-0"].message


def test_the_owner_of_the_data_may_ask_for_a_larger_threshold_than_the_plan(server, site):
    site.options["policy"] = Policy(allow="any", minimum_threshold=0.8)
    begun(server, site)
    site.steps(2)
    assert "3 of 4 clients, and the owner of this client's data asks for a fraction of 0.8" in str(server.declined)


def test_a_plan_without_a_secure_sum_is_no_sum():
    sums = secure.Sums(None, None, None, private_key=b"", roster=None)
    assert (
        sums.begin(None, None, shoal.Plan(shoal.FedAvg(models.logistic(4)), rounds=1), model=b"", demand=None) is None
    )
    assert sums.of("t") is None
    sums.end("t")
