"""The other sites of a secure sum and the server's side of it, for the server of the tests: they answer at once."""

from __future__ import annotations

import hashlib
import threading
from contextlib import nullcontext, suppress

import msgspec
import numpy as np

from shoal.errors import SecureSumError
from shoal.secure.client import ClientSession
from shoal.secure.contribution import form_of
from shoal.secure.ring import dtype
from shoal.secure.server import ServerSession
from shoal.secure.terms import Demand, Terms
from shoal.wire.messages import SecureNext
from shoal.wire.signing import new_key, public_key_of, sign


class Peers:
    """Sites b, c and d, and the sum of theirs with the contribution of a.

    `lies` has, by stage, what becomes of what a is sent after it. `told` are the messages that a sent, by stage.
    """

    def __init__(self, terms, *, key, names="bcd", silent=""):
        self.terms, self.lies, self.told, self.held = terms, {}, {}, threading.Event()
        self.held.set()
        self.private = {name: new_key() for name in names}
        self.roster = {"a": key, **{name: public_key_of(private) for name, private in self.private.items()}}
        self.server = ServerSession(terms, invited=self.roster, roster=self.roster)
        self.sessions = {name: self.session(name) for name in names if name not in silent}
        self.body, self.closed = b"", set()

    def session(self, name):
        return ClientSession(
            self.terms, name=name, sign=lambda text: sign(self.private[name], text), roster=self.roster,
            demand=Demand(), entropy=hashlib.sha256(name.encode()).digest(),
        )  # fmt: skip

    def contribution(self, name):
        """What a peer adds: one client of weight 1, and entries that wrap."""
        rng = np.random.default_rng(ord(name))
        value = rng.integers(0, 2**self.terms.bits, self.terms.size, np.uint64).astype(dtype(self.terms.bits))
        slots = np.zeros(self.terms.slots, dtype(64))
        slots[:2] = 1
        return value, slots

    def report(self, message, body):
        """The contribution of a, and then those of the others."""
        self.told["mask"], self.body = message, body
        self.server.receive("a", message, body=body)
        for name, session in self.sessions.items():
            theirs, masked = session.mask(self.server.message_for(name), *self.contribution(name))
            self.server.receive(name, theirs, body=masked)

    def step(self, stage, message):
        """What a is answered to a message of a stage."""
        if not self.held.is_set():
            return SecureNext()
        if stage not in self.closed:
            self._take(stage, message)
            self.closed.add(stage)
        if stage == "answer":
            return SecureNext()
        truth = self.server.message_for("b" if self.lies and stage == "confirm" else "a")
        return SecureNext(message=self.lies.get(stage, lambda told: told)(truth))

    def _take(self, stage, message):
        if stage != "mask":
            self.told[stage] = message
            with suppress(SecureSumError) if self.lies else nullcontext():
                self.server.receive("a", message)
            for name, session in self.sessions.items():
                said = getattr(session, stage)(*(() if stage == "advertise" else (self.server.message_for(name),)))
                self.server.receive(name, said)
        self.server.advance()

    def own(self):
        """What a contributed: the sum without the others."""
        total = self.server.result()
        value, slots = total.value.copy(), total.slots.copy()
        for name in self.sessions:
            theirs = self.contribution(name)
            value -= theirs[0]
            slots -= theirs[1]
        return value, slots


def terms_of(plan, task, container, *, notes, clients=4, **changed):
    """What an honest server says of the sum of a task."""
    form = form_of(plan.algorithm.aggregation, plan.algorithm.layout, notes=notes, clients=clients)
    told = {
        "federation": "ward", "run": task.run, "session": hashlib.sha256(task.task.encode()).digest(),
        "round": task.round, "attempt": 0, "model": hashlib.sha256(container).digest(),
        "plan": bytes.fromhex(plan.digest()), "size": form.size, "bits": form.bits, "slots": form.slots,
        "threshold": plan.algorithm.aggregation.meeting.threshold,
    }  # fmt: skip
    return Terms(**{**told, **changed})


def packed(terms):
    return msgspec.msgpack.encode(terms)
