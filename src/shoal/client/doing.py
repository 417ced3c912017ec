"""Doing one task, from the policy's word to the server's verdict, so that it can be stopped and taken up anywhere."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

from shoal.client import work
from shoal.client.connection import Connection
from shoal.client.contents import contents
from shoal.client.events import Event, Settled, Took, Trained
from shoal.client.journal import Entry, Journal
from shoal.client.ledger import Ledger
from shoal.client.policy import Allowed
from shoal.client.runs import Known, Runs
from shoal.client.secure import Sums, is_masked
from shoal.client.transfers import download, report
from shoal.errors import DataError, PolicyError, SecureSumError, ServerError, StoppedError, StoreError, SupersededError
from shoal.plan import Plan
from shoal.store.faults import point as crash_point
from shoal.wire.blobs import blob_id
from shoal.wire.messages import Declined, Manifest, Task, Verdict

BEGINNINGS = 3
"""A task whose work ended the process so many times is given back."""
MOST_MODEL_BYTES = 64 * 10**9
"""A larger model is not downloaded."""
FINAL = frozenset({"client-unknown", "federation", "version", "certificate", "not-shoal"})
"""Refusals that end the agent: no other task would fare better."""

SECURE_OVER = "secure-over"
"""The refusal of a message of a secure sum that is over, or that this client is out of."""

Reason = Literal["policy", "data", "error", "interrupted"]


class Source(Protocol):
    """Where the site's data are."""

    def load(self, plan: Plan) -> Any:
        """The data for a plan; DataError if they are not as it expects."""
        ...


class _GivenBackError(Exception):
    """The task is given back. `told` goes to the server, `why` stays here."""

    def __init__(self, reason: Reason, told: str, *, why: str = "") -> None:
        super().__init__(told)
        self.reason: Reason = reason
        self.told, self.why = told, why or told


class Doer:
    """Does tasks, one at a time. `dropped` says whether a task was cancelled meanwhile; `tell` hears what happens."""

    def __init__(
        self, connection: Connection, journal: Journal, ledger: Ledger, runs: Runs, source: Source, *, name: str,
        sums: Sums, dropped: Callable[[str], bool] = lambda task: False,
        tell: Callable[[Event], None] = lambda event: None, point: Callable[[str], None] = crash_point,
    ) -> None:  # fmt: skip
        self._connection, self._journal, self._ledger = connection, journal, ledger
        self._runs, self._source, self._name, self._sums = runs, source, name, sums
        self._dropped, self._tell, self._point = dropped, tell, point
        self._data: tuple[str, Any] = ("", None)

    def do(self, entry: Entry) -> None:
        """Goes on with a task from where the journal says it is, to its verdict.

        Raises what ends the agent: SupersededError, StoppedError, a `FINAL` ServerError, and a StoreError if not even
        that nothing was done can be written down.
        """
        task = entry.message
        known = self._runs.known(task.run)
        self._tell(Took(known.info.name, task.round, task.task))
        try:
            self._check_keys(entry, known)
            if entry.stage == "taken" and not self._work(entry, known):
                return
            verdict = self._reported(task, known)
        except _GivenBackError as given_back:
            self.give_back(task, given_back.reason, given_back.told, why=given_back.why)
        except (SupersededError, StoppedError):
            raise
        except ServerError as error:  # the server wants nothing of this task any more
            if error.code in FINAL:
                raise
            if error.code == SECURE_OVER:
                self.drop(task)
                return
            self._settle(task, "refused", str(error))
        else:
            self._ledger.verdict(task.task, verdict.verdict, run=task.run)
            self._settle(task, verdict.verdict, verdict.message)

    def give_back(self, task: Task, reason: Reason, told: str, *, why: str = "") -> None:
        """Declines a task. `why` is for the site alone."""
        info = self._runs.known(task.run).info if self._runs.knows(task.run) else None
        self._ledger.record(
            "decline", run=task.run, run_name=info.name if info else "", plan=task.plan_digest, round=task.round,
            task=task.task, detail=f"{reason}: {told}",
        )  # fmt: skip
        self._sums.end(task.task)
        try:
            verdict = self._connection.decline(task.task, Declined(reason=reason, message=told[:2000]))
        except ServerError as error:
            if error.code in FINAL or isinstance(error, SupersededError):
                raise
        else:
            if verdict.verdict == "counted":  # its result had come before this process began
                self._ledger.verdict(task.task, verdict.verdict, run=task.run)
                self._settle(task, verdict.verdict, verdict.message)
                return
        self._settle(task, "declined", f"{reason}: {why or told}")

    def drop(self, task: Task) -> None:
        """Forgets a task that the server does not wait for any more."""
        self._settle(task, "cancelled", "its round ended without it, or the run was cancelled")

    def _settle(self, task: Task, verdict: str, message: str) -> None:
        self._journal.settle(task.task, verdict)
        if verdict == "counted" and self._runs.knows(task.run):
            self._sums.go_on(task, self._runs.known(task.run).info)
        else:
            self._sums.end(task.task)
        name = self._runs.known(task.run).info.name if self._runs.knows(task.run) else task.run
        self._tell(Settled(name, task.round, task.task, verdict, message))

    def _work(self, entry: Entry, known: Known) -> bool:
        """The work, up to a result on the disk; False if the task was cancelled meanwhile."""
        task = entry.message
        if entry.begun >= BEGINNINGS:
            raise _GivenBackError(
                "interrupted", f"the work was begun {entry.begun} times and never ended: the process died"
            )
        plan, limits = self._allowed(task)
        data = self._loaded(plan)
        try:
            blob = download(self._connection, self._journal.blobs, task.model, most_bytes=MOST_MODEL_BYTES)
            state = self._state(task, plan)
            self._journal.begin(task.task)
            started = time.monotonic()
            model = work.model_bytes(self._journal.blobs.path(blob), task.model)
            part = self._sums.begin(task, known.info, plan, model=model, demand=limits.demand)
            turn = work.turn(plan.algorithm, model, data, key=task.key, state=state)
            seconds = time.monotonic() - started
            done = turn.done(part and part.masked)
        except (_GivenBackError, ServerError, StoppedError):
            raise
        except SecureSumError as error:
            raise _GivenBackError("error", f"secure sum: {error}") from error
        except DataError as error:
            raise _unfit(error) from error
        except Exception as error:  # of the plan's own code, of a framework, or for want of memory or room
            raise _failed(error) from error
        if self._dropped(task.task):
            self.drop(task)
            return False
        _check(done, seconds, task, limits)
        manifest = self._kept(task, done, seconds)
        name = known.info.name
        self._tell(Trained(name, task.round, task.task, seconds, manifest.size_bytes, counts=done.clients > 0))
        return True

    def _check_keys(self, entry: Entry, known: Known) -> None:
        """A task of a secure sum whose keys are gone with the process that made them is given back."""
        begun_here = entry.stage == "trained" and self._sums.of(entry.message.task) is not None
        if entry.begun and not begun_here and known.plan is not None and is_masked(known.plan):
            raise _GivenBackError(
                "interrupted", "secure sum: the keys that were made for this round are gone with the agent's process"
            )

    def _allowed(self, task: Task) -> tuple[Plan, Allowed]:
        """The plan and its limits, if the policy lets it have a turn now: asked before any data is touched."""
        try:
            known, limits = self._runs.allowed(task.run)
        except PolicyError as error:
            raise _GivenBackError("policy", str(error)) from error
        if known.plan is None or known.info.plan_digest != task.plan_digest:
            raise _GivenBackError("error", "the task is of another plan than its run")
        return known.plan, limits

    def _loaded(self, plan: Plan) -> Any:
        """The site's data for a plan, loaded once."""
        digest = plan.digest()
        if self._data[0] != digest:
            try:
                data = work.prepared(plan.algorithm, self._source.load(plan), name=self._name)
            except DataError as error:
                raise _unfit(error) from error
            except Exception as error:  # of a driver, or of a function that loads
                raise _failed(error) from error
            self._data = digest, data
        return self._data[1]

    def _state(self, task: Task, plan: Plan) -> bytes | None:
        """What the client remembers of the turn that the server names."""
        if task.state_of is None or not work.remembers(plan.algorithm):
            return None
        before = self._journal.entry(task.state_of)
        if before is None or before.state is None or not self._journal.blobs.has(before.state):
            raise _GivenBackError("error", f"what this client remembers of {task.state_of} is not here any more")
        return self._journal.blobs.path(before.state).read_bytes()

    def _kept(self, task: Task, done: work.Done, seconds: float) -> Manifest:
        try:
            return self._journal.trained(
                task.task, result=done.payload, coding=done.coding, state=done.state, train_s=seconds
            )
        except StoreError as error:
            raise _failed(error) from error

    def _reported(self, task: Task, known: Known) -> Verdict:
        """The server's verdict. The ledger has the result before a byte of it leaves."""
        entry = self._journal.entry(task.task)
        assert entry is not None and entry.result is not None and known.plan is not None
        blob, part = blob_id(entry.result), self._sums.of(task.task)
        sha256, message = _sha256(self._journal, blob), None if part is None else part.message
        self._ledger.record(
            "result", run=task.run, run_name=known.info.name, plan=task.plan_digest, round=task.round, task=task.task,
            bytes=entry.result.size_bytes + len(message or b""), sha256=sha256, detail=contents(known.plan),
        )  # fmt: skip
        self._point("client-sent-before")
        verdict = report(
            self._connection, self._journal.blobs, task.task, manifest=entry.result, train_s=entry.train_s,
            secure=message,
        )  # fmt: skip
        self._point("client-sent-after")
        return verdict


def _check(done: work.Done, seconds: float, task: Task, limits: Allowed) -> None:
    """What policy and server allow of a result."""
    size = len(done.payload)
    if limits.most_seconds is not None and seconds > limits.most_seconds:
        raise _GivenBackError("policy", f"maximum_seconds is {limits.most_seconds:g}, and the work took longer")
    if limits.most_bytes is not None and size > limits.most_bytes:
        raise _GivenBackError("policy", f"{size:,} bytes were to be sent, and the policy leaves {limits.most_bytes:,}")
    if size > task.most_bytes:
        raise _GivenBackError("error", f"the result has {size:,} bytes, and the server takes {task.most_bytes:,}")


def _unfit(error: DataError) -> _GivenBackError:
    """What is wrong with data is for the site alone."""
    return _GivenBackError(
        "data", "the site's data are not as the plan expects: the site's agent says how", why=str(error)
    )


def _failed(error: Exception) -> _GivenBackError:
    """An unforeseen error's text may repeat values: its kind leaves, no more."""
    kind = type(error).__name__
    return _GivenBackError("error", f"the work failed with {kind}: the site's agent says more", why=f"{kind}: {error}")


def _sha256(journal: Journal, blob: str) -> str:
    with journal.blobs.path(blob).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
