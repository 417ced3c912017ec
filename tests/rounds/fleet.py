"""Clients and a server around a machine that Hypothesis drives: its power fails whenever it likes."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shoal.rounds.events import (
    Broke,
    Cancel,
    Close,
    Closed,
    Dropped,
    Gone,
    Issued,
    Pause,
    Refused,
    Reported,
    Resume,
    Sealed,
    Seen,
    Tick,
    Undone,
)
from tests.rounds.book import Book

NAMES = tuple("abcdef")
PATIENCE_S, DEADLINE_S = 50.0, 10.0
clients = st.sampled_from(NAMES)
places = st.integers(0, 11)


class Fleet(RuleBasedStateMachine):
    """Rules and invariants for both kinds of machines; `begin` is theirs."""

    def begin(self, book: Book, make) -> None:
        """Starts with a book and a function that makes a machine that knows nothing yet."""
        self.book, self.make = book, make
        self.now = 0.0
        self.there: set[str] = set()
        self.cuts: list[int] = []
        self.restart()

    def restart(self) -> None:
        """Builds a machine from what is durable; the power may fail while it takes up its work."""
        while True:
            self.there = set()
            self.machine = self.make()
            effects = self.machine.restore(self.book.snapshot(), self.now)
            if not self.cuts:
                break
            self.persist(effects[: self.cuts.pop(0)])
        self.persist(effects)

    def persist(self, effects) -> None:
        assert sum(isinstance(effect, Close) for effect in effects) <= 1, "a round is closed by one hand"
        for effect in effects:
            if isinstance(effect, Issued):
                assert effect.client in self.there, "only those who are there get a task"
                self.there.discard(effect.client)
            self.book.apply(effect)

    def feed(self, event) -> None:
        """Gives the machine an event and makes its effects durable, or as many as the power lasts for."""
        if isinstance(event, Seen):
            self.there.add(event.client)
        if isinstance(event, Gone):
            self.there.discard(event.client)
        effects = self.machine.handle(event, self.now)
        if self.cuts:
            self.persist(effects[: self.cuts.pop(0)])
            self.restart()
            return
        self.persist(effects)
        if isinstance(event, Tick):
            due = self.machine.due()
            assert due is None or due > self.now, "no busy loop"

    def a_task(self, place: int) -> str:
        names = [*self.book.rows, "never-issued"]
        return names[-1 - place % len(names)]

    @rule(client=clients)
    def seen(self, client):
        self.feed(Seen(client))

    @rule(names=st.sets(clients, min_size=2))
    def several_are_seen(self, names):
        for client in sorted(names):
            self.feed(Seen(client))

    @rule(client=clients)
    def gone(self, client):
        self.feed(Gone(client))

    @rule(place=places)
    def reported(self, place):
        task = self.a_task(place)
        status = self.book.rows[task].task.status if task in self.book.rows else None
        before = len(self.book.counted)
        self.feed(Reported(task))
        assert len(self.book.counted) <= before + (status == "issued"), "a second report counts nothing"

    @rule()
    def all_report(self):
        for task in [task.task for task in self.book.with_status("issued")]:
            self.feed(Reported(task))

    @rule()
    def everybody_comes_and_reports(self):
        self.several_are_seen(NAMES)
        self.all_report()

    @precondition(lambda self: self.book.closing is not None)
    @rule(command=st.sampled_from((Pause("lunch"), Cancel())))
    def a_person_commands_while_a_model_is_made(self, command):
        self.feed(command)

    @rule(place=places)
    def refused(self, place):
        self.feed(Refused(self.a_task(place), "it holds NaN"))

    @rule(place=places)
    def dropped(self, place):
        self.feed(Dropped(self.a_task(place), "busy"))

    @rule(seconds=st.sampled_from((0.0, 1.0, DEADLINE_S / 2, DEADLINE_S, PATIENCE_S)))
    def time_passes(self, seconds):
        self.now += seconds
        self.feed(Tick())

    @precondition(lambda self: self.book.closing is not None)
    @rule()
    def a_model_is_made(self):
        self.feed(Closed(self.book.make_model()))

    @precondition(lambda self: self.book.closing is not None)
    @rule()
    def the_power_fails_once_a_model_is_made(self):
        self.book.make_model()
        self.restart()

    @precondition(lambda self: self.book.closing is not None)
    @rule()
    def a_model_cannot_be_made(self):
        self.feed(Broke("the disk is full"))

    @precondition(lambda self: self.book.open is not None and self.book.buffer is None)
    @rule()
    def all_keys_are_known(self):
        self.book.sealed = True
        self.feed(Sealed(self.book.round, self.book.attempt))

    @precondition(lambda self: self.book.open is not None and self.book.buffer is None)
    @rule(later=st.integers(0, 1))
    def the_sum_cannot_be_unmasked(self, later):
        round, attempt, power_lasts = self.book.round, self.book.attempt, not self.cuts
        self.feed(Undone(round, attempt + later, "too few confirmed the survivors"))
        if power_lasts:  # one of another attempt means nothing
            assert (self.book.attempt > attempt) == (not later)

    @rule(back=st.integers(0, 2))
    def an_old_answer_comes_again(self, back):
        """It is about a round that is not being closed, and means nothing."""
        of = self.book.round if self.book.closing is None else self.book.round - 1
        assert self.machine.handle(Closed(of - back), self.now) == []
        if self.book.closing is None:
            assert self.machine.handle(Broke("late news"), self.now) == []

    @rule(command=st.sampled_from((Pause("lunch"), Resume(), Cancel())), seldom=st.integers(0, 1))
    def a_person_commands(self, command, seldom):
        if seldom == 0 or not isinstance(command, Cancel):
            self.feed(command)

    @rule(seconds=st.sampled_from((0.0, 5.0, 100.0)))
    def the_power_fails(self, seconds):
        self.now += seconds
        self.restart()

    @rule(cuts=st.lists(st.integers(0, 6), min_size=1, max_size=2))
    def the_power_will_fail_amid_effects(self, cuts):
        self.cuts = cuts

    @invariant()
    def the_machine_knows_what_is_durable(self):
        book, machine = self.book, self.machine
        assert (machine.status, machine.round, machine.attempt) == (book.status, book.round, book.attempt)
        assert machine.there == self.there
        for task in book.snapshot().tasks:
            if self.book.buffer is None or task.status == "issued":
                assert machine.status_of(task.task) == task.status
        for name in book.unsummed() if book.buffer else ():
            assert machine.status_of(name) == "counted"

    @invariant()
    def rounds_are_closed_in_order_once(self):
        assert len(self.book.closed) == self.book.round
        summed = [name for tasks in self.book.closed for name in tasks]
        assert len(set(summed)) == len(summed), "no task counts twice"

    def teardown(self):
        """Whatever happened: from now on everybody is there and reports, and the run ends."""
        if not hasattr(self, "book"):
            return
        self.cuts = []
        resumed = 0
        for _ in range(100):
            status = self.book.status
            if status in ("completed", "cancelled"):
                break
            if status in ("paused", "failed", "pausing"):
                resumed += 1
                self.feed(Resume())
            for client in NAMES:
                if client not in [task.client for task in self.book.with_status("issued")]:
                    self.feed(Seen(client))
            while issued := self.book.with_status("issued"):
                self.feed(Reported(issued[0].task))
            if self.book.closing is not None:
                self.feed(Closed(self.book.make_model()))
            elif (due := self.machine.due()) is not None:
                self.now = max(self.now, due)
                self.feed(Tick())
        assert self.book.status in ("completed", "cancelled")
        assert self.book.status == "cancelled" or self.book.round == self.book.rounds
        assert resumed <= self.may_be_resumed()
        self.the_machine_knows_what_is_durable()
        self.rounds_are_closed_in_order_once()

    def may_be_resumed(self) -> int:
        """How often a run in which all is well needs a person."""
        return 2
