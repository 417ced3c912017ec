"""The agent: checks in, takes tasks, and does them, until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from shoal.client.backoff import Backoff
from shoal.client.connection import Connection
from shoal.client.consent import Consent
from shoal.client.doing import Doer, Source
from shoal.client.events import Event, Stopped
from shoal.client.identity import Home
from shoal.client.journal import Entry, Journal
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.policy import Policy, PolicyFile
from shoal.client.roster import RosterFile
from shoal.client.runs import Runs
from shoal.client.secure import Sums
from shoal.errors import ShoalError, StoppedError, StoreError
from shoal.plan import Plan
from shoal.store.blobs import Blobs
from shoal.store.faults import point as crash_point
from shoal.wire.messages import CheckIn, Holding, Orders
from shoal.wire.signing import public_key_of

HOLD_S = 25.0
"""How long a check-in is held by the server, at most, if there is no work."""
GRACE_S = 5.0
"""How long the work under way may go on once the agent is stopping."""
IDLE_S = 0.2
"""The least time between two check-ins that led to nothing."""
DRAINING_S = 2.0
"""The same, while the server is being stopped."""


class Agent:
    """One client's agent, alone in a home that has enrolled, until it is closed.

    `source` loads the site's data for a plan that `policy` allows; `plans` are those that are defined here, by a study
    file. With `hold_s` over 0 check-ins are held until there is work; with 0 the agent comes back when the server
    says. A stop lets the work under way go on for `grace_s`. `tell` hears of every event, and `point` of every change
    that becomes durable.
    """

    def __init__(
        self,
        home: Home,
        source: Source,
        *,
        policy: Policy | PolicyFile | Consent,
        plans: Sequence[Plan] = (),
        hold_s: float = HOLD_S,
        grace_s: float = GRACE_S,
        backoff: Backoff | None = None,
        tell: Callable[[Event], None] = lambda event: None,
        point: Callable[[str], None] = crash_point,
    ) -> None:
        identity, private_key = home.identity, home.private_key
        if identity is None:
            raise StoreError(f"{home.folder} is not enrolled: it takes a token from the server's operator, once")
        self._tell, self._hold_s, self._grace_s = tell, hold_s, grace_s
        with ExitStack() as opened:
            opened.enter_context(home.held())
            self._ledger = opened.enter_context(Ledger(home.folder / "ledger.db"))
            self._journal = Journal(home.folder / "journal.db", Blobs(home.folder / "blobs"), point=point)
            opened.callback(self._journal.close)
            self._journal.prune()
            known = self._journal.runs()
            self._held = opened.pop_all()
        self._line = Line(
            identity.server, authority=identity.authority, backoff=backoff, tell=tell, count=self._ledger.traffic
        )
        self._connection = Connection(self._line, identity, private_key=private_key, tell=tell)
        roster = RosterFile(home.folder, name=identity.name, key=public_key_of(private_key))
        self._runs = Runs(policy, self._ledger, plans=plans, roster=roster, tell=tell)
        self._sums = Sums(
            self._connection, self._ledger, identity, private_key=private_key, roster=roster, tell=tell, point=point
        )  # fmt: skip
        self._dropped: set[str] = set()
        self._doer = Doer(
            self._connection, self._journal, self._ledger, self._runs, source, name=identity.name,
            sums=self._sums, dropped=self._dropped.__contains__, tell=tell, point=point,
        )  # fmt: skip
        self._stop, self._wake = threading.Event(), threading.Event()
        self._working: threading.Thread | None = None
        self._failure: BaseException | None = None
        for info in known:
            self._runs.learn(info)

    def close(self) -> None:
        """Closes the files and the connections, and lets another agent have the home."""
        self._sums.close()
        self._line.close()
        self._held.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def working(self) -> bool:
        """Whether a thread still works on a task; after a stop in the middle of one, until that ends by itself.

        The interpreter does not survive its own end while compiled code runs: a program then ends by `end_process`.
        """
        return self._working is not None

    def step(self, *, wait_s: float = 0.0) -> float:
        """One check-in and the work that it leads to, here and now; how long the server says to wait."""
        orders = self._check_in(wait_s)
        for entry in self._ready():
            self._doer.do(entry)
        self._sums.wait()
        return orders.wait_s

    def stop(self) -> None:
        """Ends `run` within seconds; it may be called from another thread, or when a signal comes."""
        self._stop.set()
        self._wake.set()
        if self._working is None:
            self._line.stop()  # a check-in that is held ends at once

    def run(self) -> None:
        """Works until it is stopped: by `stop`, or by SIGTERM or Ctrl-C where it runs in the main thread.

        Raises what made it end by itself: SupersededError, a refusal for good, a disk that takes nothing more.
        """
        with self._signals():
            try:
                while not self._stop.is_set():
                    self._turn_round()
            except StoppedError:
                pass
            except ShoalError as error:
                self._tell(Stopped(str(error)))
                raise
            self._finish()
            self._tell(Stopped("as it was asked"))

    def _turn_round(self) -> None:
        """One check-in, the start of the work that it leads to, and the wait until the next one."""
        self._wake.clear()
        if self._failure is not None:
            raise self._failure
        busy = self._working is not None
        orders = self._check_in(0.0 if busy else self._hold_s)
        if not busy:
            self._begin()
        if busy or self._working is not None:
            self._wake.wait(max(orders.wait_s, IDLE_S))  # the end of the work, during the check-in too, ends the wait
        elif orders.draining or orders.wait_s > 0 or orders.tasks or not (orders.runs or self._hold_s):
            self._stop.wait(max(orders.wait_s, DRAINING_S if orders.draining else IDLE_S))

    def _check_in(self, wait_s: float) -> Orders:
        holding = tuple(Holding(task=entry.message.task) for entry in self._journal.open())
        message = CheckIn(
            holding=holding[:100], wait_s=0.0 if holding else wait_s, busy=self._working is not None,
            refuses=self._runs.refused()[:1000],
        )  # fmt: skip
        orders = self._connection.check_in(message)
        for info in orders.runs:
            self._runs.learn(info)
            self._journal.learn(info)
        for task in orders.tasks:
            self._journal.take(task)
        if any(not self._runs.knows(task.run) for task in orders.tasks):
            self._connection.forget()  # an answer that told of the run was lost: a new session is told again
        self._drop(orders.cancelled)
        return orders

    def _drop(self, cancelled: Sequence[str]) -> None:
        """Forgets tasks whose work is not done. What has a result is reported: its verdict may be that it counts."""
        self._dropped.intersection_update(entry.message.task for entry in self._journal.open())
        for entry in self._journal.open():
            if entry.message.task in cancelled and entry.stage == "taken":
                self._dropped.add(entry.message.task)
                if self._working is None:
                    self._doer.drop(entry.message)

    def _ready(self) -> list[Entry]:
        """The open tasks of runs that are known."""
        return [entry for entry in self._journal.open() if self._runs.knows(entry.message.run)]

    def _begin(self) -> None:
        """Begins to do the tasks that are open, in a thread of their own."""
        entries = self._ready()
        if entries:
            self._working = threading.Thread(target=self._work, args=(entries,), daemon=True, name="shoal work")
            self._working.start()

    def _work(self, entries: Sequence[Entry]) -> None:
        try:
            for entry in entries:
                if self._stop.is_set():
                    break
                if entry.message.task in self._dropped:
                    self._doer.drop(entry.message)
                else:
                    self._doer.do(entry)
        except BaseException as error:
            self._failure = error
        finally:
            self._working = None
            self._wake.set()

    def _finish(self) -> None:
        """Lets the work end if it does so soon; else gives back what has no result. What has one is sent next time."""
        working = self._working
        if working is not None:
            working.join(self._grace_s)
        self._sums.wait(self._grace_s)
        self._line.stop()
        for entry in self._journal.open():
            if entry.stage == "taken":
                self._dropped.add(entry.message.task)
                with suppress(ShoalError):
                    self._doer.give_back(entry.message, "interrupted", "the agent was stopped")

    @contextmanager
    def _signals(self) -> Generator[None]:
        """SIGTERM and the first Ctrl-C stop the agent; a second Ctrl-C interrupts it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.stop()

        before: dict[Any, Any] = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def end_process(status: int) -> NoReturn:
    """Ends the process at once, with what was printed: for the end of a program whose agent is still `working`."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
