"""A site's part in the secure sums of its tasks: keys while it trains, then masks, then shares that open the sum.

Secrets are in memory only, and gone with the last answer, an error or the process. The server is heard and not
believed: what a session is about must be what this site's own plan, model and policy give.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import msgspec

from shoal.aggregation import Payload
from shoal.client.connection import Connection
from shoal.client.events import Event, Opened, Withheld
from shoal.client.identity import Identity
from shoal.client.ledger import Ledger
from shoal.client.roster import RosterFile
from shoal.errors import SecureSumError, SettingError, StoppedError
from shoal.plan import Plan
from shoal.secure.client import ClientSession
from shoal.secure.contribution import Form, form_of, to_ring
from shoal.secure.messages import Advertised, Survivors
from shoal.secure.messages import decode as message_of
from shoal.secure.terms import Demand, Terms
from shoal.store.faults import point as crash_point
from shoal.turns import notes_of
from shoal.wire.codec import decode, encode
from shoal.wire.messages import RunInfo, SecureNext, SecureStep, Task
from shoal.wire.signing import sign

STEP_S = 20.0
"""How long the server holds a message of a stage, at most, while others are waited for."""
IDLE_S = 0.2
"""The least time between two times that it is said."""

Stage = Literal["advertise", "share", "mask", "confirm", "answer"]
Say = Callable[[Stage, bytes], bytes]
"""Sends a stage's message until the server has what follows it, and gives that."""

CONTENTS: Mapping[Stage, str] = {
    "advertise": "two public keys for the secure sum of this round",
    "share": "shares of two secrets of this round, each sealed for another site",
    "confirm": "a signature: whose contributions are in the sum",
    "answer": "shares of secrets of this round, which open the sum and nothing else",
}
"""What a message of a stage holds, for the ledger. That of "mask" left with the result."""


def is_masked(plan: Plan) -> bool:
    """Whether the plan's contributions meet in a secure sum."""
    return plan.algorithm.aggregation.threshold > 0


def terms_of(task: Task, plan: Plan, *, federation: str, model: Any, demand: Demand) -> Terms:
    """What the secure sum of a task is about, as the server says it.

    SecureSumError if that is not what the site's own plan, and the model's bytes that it was sent, give.
    """
    if task.secure is None:
        raise SecureSumError("the plan has a secure sum, and the server began none for this task")
    try:
        terms = msgspec.msgpack.decode(task.secure, type=Terms)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise SecureSumError("what the server says of this secure sum is damaged") from None
    threshold = plan.algorithm.aggregation.threshold
    form = _form(plan, clients=max(demand.clients, threshold))
    given = {
        "federation": federation, "run": task.run, "round": task.round, "model": hashlib.sha256(model).digest(),
        "plan": bytes.fromhex(plan.digest()), "size": form.size, "slots": form.slots, "threshold": threshold,
    }  # fmt: skip
    for name, value in given.items():
        if getattr(terms, name) != value:
            raise SecureSumError(f"what the server says of this secure sum is not what the task gives, in its {name}")
    if terms.bits < form.bits:
        raise SecureSumError(f"the server says {terms.bits} bits, in which the sum of this plan does not fit")
    return terms


def _form(plan: Plan, *, clients: int) -> Form:
    """What a contribution to a sum of so many clients looks like; SecureSumError if none can be."""
    algorithm = plan.algorithm
    try:
        return form_of(algorithm.aggregation, algorithm.layout, notes=notes_of(algorithm), clients=clients)
    except SettingError as error:
        raise SecureSumError(str(error)) from error


class Part:
    """This site's part in the secure sum of one task: a thread that talks to the server, and what it has agreed on.

    It agrees on keys at once, while the site trains.
    """

    def __init__(self, session: ClientSession, terms: Terms, plan: Plan, *, say: Say, ended: threading.Event) -> None:
        self._session, self._terms, self._plan, self._say, self._ended = session, terms, plan, say, ended
        self._inbox, self._clients = b"", 0
        self._failure: BaseException | None = None
        self.message = b""
        """The Masked message, once there is one."""
        self._thread = self._begun(self._agree)

    def masked(self, payload: Payload) -> bytes:
        """The contribution under its masks. It waits for the keys, and raises what went wrong with them."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        value, slots = to_ring(payload, replace(_form(self._plan, clients=self._clients), bits=self._terms.bits))
        self.message, body = self._session.mask(self._inbox, value, slots)
        return bytes(body)

    def go_on(self, told: Callable[[int, str], None]) -> None:
        """Opens the sum with the others, in its thread. `told` hears of how many clients it is, or why it is not."""
        self._thread = self._begun(partial(self._open, told))

    def wait(self, within_s: float | None = None) -> None:
        """Waits for what is under way."""
        self._thread.join(within_s)

    def close(self) -> None:
        """Ends it, wherever it is: its secrets are erased, and nothing more is said."""
        self._ended.set()
        self._session.close()

    def _begun(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True, name="shoal secure sum")
        thread.start()
        return thread

    def _agree(self) -> None:
        """Keys and shares: the two stages that need no contribution."""
        try:
            advertised = self._say("advertise", self._session.advertise())
            self._clients = len(message_of(advertised, Advertised).advertisements)
            self._inbox = self._say("share", self._session.share(advertised))
        except BaseException as error:
            self._failure = error
            self.close()

    def _open(self, told: Callable[[int, str], None]) -> None:
        """The stages after the contribution. Whatever is not as it must be, nothing more leaves."""
        try:
            survivors = self._say("mask", self.message)
            confirmations = self._say("confirm", self._session.confirm(survivors))
            self._say("answer", self._session.answer(confirmations))
            told(sum(byte.bit_count() for byte in message_of(survivors, Survivors).masked), "")
        except StoppedError:
            pass
        except Exception as error:
            told(0, str(error) or type(error).__name__)
        finally:
            self.close()


class Sums:
    """The secure sums that this site takes part in now, each for a task. `entropy` gives 32 bytes for each of them."""

    def __init__(
        self, connection: Connection, ledger: Ledger, identity: Identity, *, private_key: bytes, roster: RosterFile,
        tell: Callable[[Event], None] = lambda event: None, entropy: Callable[[], bytes] = lambda: os.urandom(32),
        point: Callable[[str], None] = crash_point,
    ) -> None:  # fmt: skip
        self._connection, self._ledger, self._identity = connection, ledger, identity
        self._private_key, self._roster, self._tell, self._entropy = private_key, roster, tell, entropy
        self._point = point
        self._parts: dict[str, Part] = {}

    def begin(self, task: Task, info: RunInfo, plan: Plan, *, model: Any, demand: Demand) -> Part | None:
        """Takes part in the sum of a task; None if the plan has none that is secure.

        SecureSumError if the server says something else of it than the plan gives.
        """
        if not is_masked(plan):
            return None
        identity = self._identity
        terms = terms_of(task, plan, federation=identity.federation, model=model, demand=demand)
        session = ClientSession(
            terms, name=identity.name, sign=partial(sign, self._private_key), roster=self._roster.sites(),
            demand=demand, entropy=self._entropy(),
        )  # fmt: skip
        ended = threading.Event()
        say = partial(self._say, task, info, ended)
        part = self._parts[task.task] = Part(session, terms, plan, say=say, ended=ended)
        return part

    def of(self, task: str) -> Part | None:
        """The part in a task's sum, if there is one: it does not outlive the process."""
        return self._parts.get(task)

    def go_on(self, task: Task, info: RunInfo) -> None:
        """A task's contribution is counted: its sum is to be opened."""
        part = self._parts.get(task.task)

        def told(clients: int, why_not: str) -> None:
            self._parts.pop(task.task, None)
            common = info.name, task.round, task.task
            self._tell(Withheld(*common, why_not) if why_not else Opened(*common, clients))

        if part is not None:
            part.go_on(told)

    def end(self, task: str) -> None:
        """A task came to nothing: what was agreed on for it is erased."""
        part = self._parts.pop(task, None)
        if part is not None:
            part.close()

    def wait(self, within_s: float | None = None) -> None:
        """Waits until the sums that are being opened are opened."""
        for part in list(self._parts.values()):
            part.wait(within_s)

    def close(self) -> None:
        """Ends all."""
        for task in list(self._parts):
            self.end(task)

    def _say(self, task: Task, info: RunInfo, ended: threading.Event, stage: Stage, message: bytes) -> bytes:
        """What follows a stage's message. The ledger has the message before it leaves."""
        self._point(f"client-secure-{stage}")
        if stage in CONTENTS:
            self._ledger.record(
                "keys", run=task.run, run_name=info.name, plan=task.plan_digest, round=task.round, task=task.task,
                bytes=len(message), sha256=hashlib.sha256(message).hexdigest(), detail=CONTENTS[stage],
            )  # fmt: skip
        step, path = encode(SecureStep(stage=stage, message=message, wait_s=STEP_S)), f"/v1/tasks/{task.task}/secure"
        while True:
            answer = decode(self._connection.call("POST", path, step, kind="keys", wait_s=STEP_S), SecureNext)
            if answer.message is not None or stage == "answer":
                return answer.message or b""
            if ended.wait(IDLE_S):
                raise StoppedError("this secure sum was given up here")
