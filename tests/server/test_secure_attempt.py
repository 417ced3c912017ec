"""One attempt's secure sum by itself: what it does about contributions that come as the round closes, and restarts."""

from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from shoal import Clip, Mean, Quantize, SecureSum
from shoal.aggregation import Payload
from shoal.errors import SecureSumError, ServerError, WireError
from shoal.rounds.events import Dropped, Sealed, Undone
from shoal.secure.client import ClientSession
from shoal.secure.contribution import form_of, to_ring
from shoal.secure.terms import Demand, Terms
from shoal.server.secure import Attempt
from shoal.server.services import Services
from shoal.store.blobs import Blobs
from shoal.store.store import open_store
from shoal.vector import Layout, Part
from shoal.wire.messages import Result, SecureStep
from shoal.wire.signing import new_key, public_key_of, sign

NAMES = ("a", "b", "c", "d")
LAYOUT = Layout((Part("w", (6,)),))
FORM = form_of(
    Clip(1.0) >> Quantize(0.1) >> SecureSum(threshold=3) >> Mean(), LAYOUT, notes={"loss": 2}, clients=len(NAMES)
)


class Round:
    """Four clients, and an attempt whose rows are kept in a list in place of a store."""

    def __init__(self, folder, *, stage_s=60.0):
        self.blobs, self.store, self.stage_s = Blobs(folder), open_store("memory:"), stage_s
        self.keys = {name: new_key() for name in NAMES}
        self.roster = {name: public_key_of(key) for name, key in self.keys.items()}
        self.services = Services(
            self.store, self.blobs, lambda name: None, lambda: None, lambda run, status: None, lambda: (), "f",
            lambda: self.roster,
        )  # fmt: skip
        self.terms = Terms(
            federation="f", run="r", session=os.urandom(32), round=0, attempt=0, model=bytes(32), plan=bytes(32),
            size=FORM.size, bits=FORM.bits, slots=FORM.slots, threshold=3,
        )  # fmt: skip
        self.rows, self.events = [], []
        self.session = {
            name: ClientSession(
                self.terms, name=name, sign=lambda text, key=key: sign(key, text), roster=self.roster,
                demand=Demand(clients=2), entropy=os.urandom(32),
            )
            for name, key in self.keys.items()
        }  # fmt: skip

    def take(self, events, writes):
        """Makes rows durable at once, and hears of events."""
        self.events.extend(events)
        self.rows.extend({name: write.given[name] for name in ("stage", "client", "message")} for write in writes)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def begin(self):
        """An attempt that knows what is durable."""
        self.attempt = Attempt(
            self.services, self.terms, FORM, stage_s=self.stage_s, take=self.take, rows=tuple(self.rows)
        )
        for name in NAMES:
            self.attempt.invite(name, f"task-of-{name}")
        self.attempt.restore()
        self.attempt.go_on()

    async def say(self, name, stage, message, *, wait_s=5.0):
        return await self.attempt.step(name, SecureStep(stage=stage, message=message, wait_s=wait_s))

    async def keys_of(self, *names):
        """The stages before contributions: what each client is to mask with."""
        advertised = await asyncio.gather(*(self.say(n, "advertise", self.session[n].advertise()) for n in names))
        shares = [self.session[n].share(told) for n, told in zip(names, advertised, strict=True)]
        inboxes = await asyncio.gather(*(self.say(n, "share", s) for n, s in zip(names, shares, strict=True)))
        return dict(zip(names, inboxes, strict=True))

    def result(self, name, inbox):
        """A client's masked contribution: as many as its place in the alphabet, in each entry."""
        number = NAMES.index(name) + 1
        payload = Payload(np.full(6, number, np.int32), np.int32(1), {"loss": np.ones(2, np.float32)}, np.int32(1))
        message, body = self.session[name].mask(inbox, *to_ring(payload, FORM))
        return Result(manifest=self.blobs.put_bytes(bytes(body)), secure=message)

    async def opens(self, name, result):
        """The stages after contributions."""
        survivors = await self.say(name, "mask", result.secure)
        confirmations = await self.say(name, "confirm", self.session[name].confirm(survivors))
        await self.say(name, "answer", self.session[name].answer(confirmations))


@pytest.fixture
def round(tmp_path):
    made = Round(tmp_path)
    yield made
    made.services.close()
    made.store.close()


def counted(round, results, *names):
    """What the machine counted; their messages are durable with that."""
    for name in names:
        round.take((), (round.attempt.counted(name),))
    return {name: results[name].manifest for name in names}


def test_a_contribution_that_came_while_the_round_closed_without_it_is_not_in_the_sum(round):
    async def run():
        round.begin()
        inboxes = await round.keys_of(*NAMES)
        results = {name: round.result(name, inboxes[name]) for name in NAMES}
        for name in NAMES:
            await round.attempt.contribute(name, results[name])
        given = counted(round, results, "a", "b", "d")
        total, *_ = await asyncio.gather(
            round.attempt.total(given), *(round.opens(name, results[name]) for name in ("a", "b", "d"))
        )
        return total

    total = asyncio.run(run())
    assert total.value.tolist() == [1 + 2 + 4] * 6
    assert (int(total.clients), int(total.weight), total.notes["loss"].tolist()) == (3, 3, [3.0, 3.0])


def test_an_attempt_made_of_its_rows_goes_on_after_each_of_them(round):
    """It is built anew after every single message."""

    async def again():
        round.attempt.end(ServerError("gone", code="store"))
        round.begin()
        await asyncio.sleep(0)

    async def run():
        round.begin()
        for name in NAMES:
            await round.say(name, "advertise", round.session[name].advertise(), wait_s=0.0)
            await again()
        messages = {name: row["message"] for row in round.rows if (name := row["client"])}
        for name in NAMES:
            advertised = await round.say(name, "advertise", messages[name])
            await round.say(name, "share", round.session[name].share(advertised), wait_s=0.0)
            await again()
        shares = {row["client"]: row["message"] for row in round.rows if row["stage"] == "share"}
        results, given = {}, {}
        for name in NAMES:
            results[name] = round.result(name, await round.say(name, "share", shares[name]))
            await round.attempt.contribute(name, results[name])
            given |= counted(round, results, name)
            await again()
        stages = [row["stage"] for row in round.rows]
        assert stages == [stage for stage in ("advertise", "share") for _ in range(5)] + ["mask"] * 4
        total = asyncio.ensure_future(round.attempt.total(given))
        confirmations = {}
        for name in NAMES:
            survivors = await round.say(name, "mask", results[name].secure)
            message = round.session[name].confirm(survivors)
            await round.say(name, "confirm", message, wait_s=0.0)
            confirmations[name] = message
            total.cancel()
            await again()
            total = asyncio.ensure_future(round.attempt.total(given))
        for name in NAMES:
            total.cancel()
            await again()
            total = asyncio.ensure_future(round.attempt.total(given))
            told = await round.say(name, "confirm", confirmations[name])
            await round.say(name, "answer", round.session[name].answer(told))
        return await total

    assert asyncio.run(run()).value.tolist() == [10] * 6
    assert round.events == [Sealed(0, 0)]


def test_who_says_nothing_of_its_keys_in_time_has_no_part_and_the_attempt_is_sealed(tmp_path):
    round = Round(tmp_path, stage_s=0.2)

    async def run():
        round.begin()
        await round.keys_of("a", "b", "c")
        with pytest.raises(ServerError) as late:
            await round.say("d", "advertise", round.session["d"].advertise())
        return late.value.code

    assert asyncio.run(run()) == "secure-over"
    assert round.events == [Sealed(0, 0), Dropped("task-of-d", "it came too late for the keys of this round")]
    round.services.close()


def test_too_few_keys_undo_the_attempt(tmp_path):
    round = Round(tmp_path, stage_s=0.1)

    async def run():
        round.begin()
        await round.say("a", "advertise", round.session["a"].advertise(), wait_s=0.3)

    asyncio.run(run())
    (undone,) = round.events
    assert isinstance(undone, Undone) and "1 clients advertised keys and it takes 3" in undone.reason
    round.services.close()


def test_survivors_that_are_too_few_to_unmask_end_in_no_sum(tmp_path):
    round = Round(tmp_path, stage_s=0.2)

    async def run():
        round.begin()
        inboxes = await round.keys_of(*NAMES)
        results = {name: round.result(name, inboxes[name]) for name in NAMES}
        for name in NAMES:
            await round.attempt.contribute(name, results[name])
        total = asyncio.ensure_future(round.attempt.total(counted(round, results, *NAMES)))
        await asyncio.gather(*(round.say(n, "mask", results[n].secure) for n in NAMES))
        with pytest.raises(SecureSumError, match="0 clients confirmed the survivors and it takes 3"):
            await total

    asyncio.run(run())
    round.services.close()


def test_a_contribution_before_the_keys_are_known_or_of_another_client_is_not_taken(round):
    async def run():
        round.begin()
        blob = round.blobs.put_bytes(bytes(round.terms.body_bytes))
        with pytest.raises(ServerError, match="keys of this round are not known"):
            await round.attempt.contribute("a", Result(manifest=blob, secure=b"x"))
        inboxes = await round.keys_of(*NAMES)
        results = {name: round.result(name, inboxes[name]) for name in ("a", "b")}
        with pytest.raises(WireError, match="of another client"):
            await round.attempt.contribute("a", results["b"])
        await round.attempt.contribute("a", results["a"])

    asyncio.run(run())


def test_whoever_waits_is_answered_when_the_server_drains_and_told_when_the_attempt_is_over(round):
    async def run():
        round.begin()
        first = asyncio.ensure_future(round.say("a", "advertise", round.session["a"].advertise(), wait_s=20.0))
        second = asyncio.ensure_future(round.say("b", "advertise", round.session["b"].advertise(), wait_s=20.0))
        await asyncio.sleep(0.01)
        assert not first.done() and round.attempt.waits_for() == ("c", "d")
        round.attempt.answer_all()
        assert [await first, await second] == [None, None]
        round.begin()
        message = next(row["message"] for row in round.rows if row["client"] == "a")
        waiting = asyncio.ensure_future(round.say("a", "advertise", message, wait_s=20.0))
        await asyncio.sleep(0.01)
        round.attempt.end(ServerError("it is over", code="secure-over"))
        with pytest.raises(ServerError, match="it is over"):
            await waiting

    asyncio.run(run())
