"""The secure sums of one run: a session for each attempt at a round, from its terms to its sum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import msgspec

from shoal.aggregation import Payload
from shoal.cohort import Fixed
from shoal.errors import PlanError, SecureSumError, ServerError
from shoal.plan import Plan
from shoal.rounds.events import Abandoned, Effect, Issued, Opened, Settled, TaskStatus
from shoal.rounds.rules import Rules
from shoal.secure.contribution import Form, form_of
from shoal.secure.parameters import shape
from shoal.secure.terms import CORRUPT, Terms
from shoal.server.closing import Model
from shoal.server.records import Record, RunFacts, manifest_of_row
from shoal.server.secure import Attempt, Take
from shoal.server.services import Services
from shoal.store.store import Row, Write
from shoal.turns import notes_of
from shoal.wire.messages import Manifest, Result, SecureNext, SecureStep

MOST_ASKED = 1.5
"""More clients than this times a cohort are not asked: more than half of those whose keys are known must be in the sum,
and whoever comes after the cohort is full is not."""


def fewest(plan: Plan) -> int:
    """With how many contributions a round closes at least, where no rules say so."""
    return max(2, plan.min_clients, plan.algorithm.aggregation.threshold)


def check_secure(plan: Plan, rules: Rules) -> None:
    """PlanError for rules under which the rounds of a plan with a secure sum would come to nothing; SettingError for a
    plan whose contributions no integers hold."""
    threshold = plan.algorithm.aggregation.threshold
    if not threshold:
        return
    if rules.at_least < threshold:
        raise PlanError(
            f"a round may close with {rules.at_least} contributions, and the secure sum shows itself from {threshold} "
            f"on: use Rules(at_least={threshold}), or more"
        )
    if rules.over_selection > MOST_ASKED:
        raise PlanError(
            f"over_selection is at most {MOST_ASKED} with a secure sum, not {rules.over_selection}: more than half of "
            "those whose keys are known must be in the sum"
        )
    _form(plan, clients=rules.at_least)
    if isinstance(plan.sampler, Fixed):
        asked = rules.asked(plan.sampler.clients)
        try:
            shape(asked, threshold=threshold, corrupt=CORRUPT)
        except SecureSumError as error:
            raise PlanError(f"{asked} clients are asked in a round: {error}") from None


class SecureRun:
    """The sums of a run whose server sees no contribution: it holds the session of the attempt that is open."""

    def __init__(self, services: Services, facts: RunFacts, take: Take) -> None:
        self._services, self._facts, self._take = services, facts, take
        self._attempt: Attempt | None = None
        self._why_not = _over()  # what is said where no attempt is open
        self._of: dict[str, str] = {}  # the clients of the attempt, by task
        self._digests: dict[Manifest, bytes] = {}

    # what happens to the run

    async def prepare(self, model: Model, sent: Manifest) -> None:
        """Computes the digest of what clients of a model are sent, to which masks are bound, before it is used."""
        digest = await self._services.thread(lambda: hashlib.sha256(model.call()).digest())
        self._digests = dict([*self._digests.items(), (sent, digest)][-2:])  # of this model, and of the one before

    def _opened(self, effect: Opened, *, model: bytes) -> list[Write]:
        """A new session. `model` is the digest of what its clients are sent."""
        self.ended()
        if not effect.cohort:
            return []
        form = _form(self._facts.plan, clients=effect.cohort)
        terms = Terms(
            federation=self._services.federation, run=self._facts.run, session=os.urandom(32), round=effect.round,
            attempt=effect.attempt, model=model, plan=bytes.fromhex(self._facts.plan.digest()), size=form.size,
            bits=form.bits, slots=form.slots, threshold=self._facts.plan.algorithm.aggregation.threshold,
        )  # fmt: skip
        self._attempt = self._new(terms, form)
        at = {"run": terms.run, "round": terms.round, "attempt": terms.attempt}
        return [Write("secure_open", {**at, "terms": msgspec.msgpack.encode(terms)}, wants=1)]

    def issued(self, effect: Issued) -> bytes | None:
        """A client has a task of the open attempt; the terms that it is sent."""
        if self._attempt is None:
            return None
        self._of[effect.task] = effect.client
        self._attempt.invite(effect.client, effect.task)
        return msgspec.msgpack.encode(self._attempt.terms)

    def follow(self, effect: Effect, *, sent: Manifest) -> list[Write]:
        """What makes durable what an effect means for the run's sums. `sent` is the blob that clients are sent."""
        match effect:
            case Opened():
                return self._opened(effect, model=self._digests[sent])
            case Settled(task, status, reason):
                return self._settled(task, status, reason)
            case Abandoned(round):
                self.ended()
                return self.forgotten(round)
            case _:
                return []

    def _settled(self, task: str, status: TaskStatus, reason: str) -> list[Write]:
        client = self._of.get(task)
        if self._attempt is None or client is None:
            return []
        if status == "counted":
            return [self._attempt.counted(client)]
        self._attempt.leaves(client, reason)
        return []

    def forgotten(self, round: int) -> list[Write]:
        """What deletes the sessions up to a round: no part of one is needed after its end."""
        at = {"run": self._facts.run, "round": round}
        return [Write("secure_forget", at), Write("secure_steps_forget", at)]

    def ended(self, error: ServerError | None = None) -> None:
        """The attempt is over, or the run is built anew; whoever waits is told."""
        self._why_not = error or _over()
        if self._attempt is not None:
            self._attempt.end(self._why_not)
        self._attempt, self._of = None, {}

    def durable(self, effect: Effect, counted: Manifest | None) -> None:
        """Nothing: what came is added already."""

    def answer_all(self) -> None:
        """Whoever waits is answered."""
        if self._attempt is not None:
            self._attempt.answer_all()

    # restarts

    async def restore(self, record: Record) -> None:
        """Takes up the session of the open attempt as it was made durable."""
        if record.terms is None or record.saved.cohort is None:
            self._why_not = _over()
            return
        terms = msgspec.msgpack.decode(record.terms, type=Terms)
        attempt = self._new(terms, _form(self._facts.plan, clients=record.saved.cohort), record.steps)
        for row in record.saved.tasks:
            self._of[row.task] = row.client
            attempt.invite(row.client, row.task)
        await self._services.thread(attempt.restore)
        self._attempt, self._why_not = attempt, _over()
        for row in record.saved.tasks:
            if row.status not in ("issued", "counted"):
                attempt.leaves(row.client)

    def go_on(self) -> None:
        """After `restore`, once the run takes events again."""
        if self._attempt is not None:
            self._attempt.go_on()

    def _new(self, terms: Terms, form: Form, rows: Sequence[Row] = ()) -> Attempt:
        return Attempt(self._services, terms, form, stage_s=self._facts.rules.stage_s, take=self._take, rows=rows)

    # what clients bring

    @property
    def most_bytes(self) -> int:
        """The size of a contribution."""
        return 0 if self._attempt is None else self._attempt.terms.body_bytes

    def waits_for(self) -> tuple[str, ...]:
        """The clients whose next message of the protocol is waited for."""
        return () if self._attempt is None else self._attempt.waits_for()

    async def step(self, client: str, task: str, message: SecureStep) -> SecureNext:
        """Takes a client's message of a stage; what it is sent after it."""
        owner = self._of.get(task)
        if self._attempt is None:
            raise self._why_not
        if owner is None:
            raise _over()
        if owner != client:
            raise ServerError(f"{task} is another client's task", code="not-yours")
        return SecureNext(message=await self._attempt.step(client, message))

    async def look(self, client: str, message: Result) -> None:
        """Adds a masked contribution to the sum of its round; WireError if it is none."""
        if self._attempt is None:
            raise self._why_not
        await self._attempt.contribute(client, message)

    async def total(self, rows: Sequence[Row]) -> Payload | None:
        """The sum of the contributions in rows of tasks, from the attempt's session; None if nobody was asked."""
        if self._attempt is None:
            return None
        return await self._attempt.total({row["client"]: manifest_of_row(row) for row in rows})


def _over() -> ServerError:
    return ServerError("the secure sum of this task is over", code="secure-over")


def _form(plan: Plan, *, clients: int) -> Form:
    algorithm = plan.algorithm
    return form_of(algorithm.aggregation, algorithm.layout, notes=notes_of(algorithm), clients=clients)
