"""Runs without rounds to wait for: what a model is made of, what stale work counts, and that nothing stands still."""

from __future__ import annotations

import math

import pytest

from shoal.errors import SettingError
from shoal.rounds.buffered import BufferedMachine
from shoal.rounds.events import (
    Abandoned,
    Became,
    Broke,
    Close,
    Closed,
    Dropped,
    Issued,
    Opened,
    Pause,
    Reported,
    Resume,
    Seen,
    Settled,
    Tick,
)  # fmt: skip
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot, TaskRow


def begun(*, rounds=10, **rules):
    made = BufferedMachine("run", rules=Rules(**rules), rounds=rounds)
    assert made.restore(Snapshot(), 0.0) == []
    return made


def seen(machine, names, now=0.0):
    return [effect for name in names for effect in machine.handle(Seen(name), now)]


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


def tasks(effects):
    """The tasks that were issued, by client."""
    return {effect.client: effect.task for effect in of(Issued, effects)}


def test_a_model_is_made_of_the_contributions_that_come_first_whoever_they_are_from():
    machine = begun(buffer=2)
    task = tasks(seen(machine, "abc"))
    assert machine.handle(Reported(task["c"]), 1.0) == [Settled(task["c"], "counted")]
    assert machine.handle(Reported(task["a"]), 2.0) == [
        Settled(task["a"], "counted"), Close(0, (task["c"], task["a"])),
    ]  # fmt: skip
    assert machine.handle(Closed(0), 3.0) == [Opened(1, 0, 2, math.inf)]


def test_a_contribution_counts_less_the_more_models_were_made_since_it_began():
    machine = begun(buffer=1, most_stale=8)
    slow = tasks(seen(machine, "s"))["s"]
    for number in range(8):
        (task,) = tasks(seen(machine, "q", now=number)).values()
        assert machine.handle(Reported(task), number)[0] == Settled(task, "counted")
        machine.handle(Closed(number), number)
    settled, close = machine.handle(Reported(slow), 9.0)
    assert settled == Settled(slow, "counted", scale=1 / 3) and close == Close(8, (slow,))  # (1 + 8)^-1/2


def test_one_that_is_too_stale_counts_nothing():
    machine = begun(buffer=1, most_stale=0)
    slow = tasks(seen(machine, "s"))["s"]
    quick = tasks(seen(machine, "q"))["q"]
    machine.handle(Reported(quick), 1.0)
    machine.handle(Closed(0), 1.0)
    assert of(Settled, machine.handle(Reported(slow), 2.0)) == [
        Settled(slow, "late", "its model is 1 behind, and at most 0 count")
    ]


def test_what_comes_while_a_model_is_made_is_for_the_next_one_and_as_stale_as_that_makes_it():
    machine = begun(buffer=2, wait_for=6)
    task = tasks(seen(machine, "abcdef"))
    scales = [of(Settled, machine.handle(Reported(task[client]), 1.0))[0].scale for client in "abcdef"]
    assert scales == pytest.approx([1, 1, 2**-0.5, 2**-0.5, 3**-0.5, 3**-0.5])
    assert of(Close, machine.handle(Closed(0), 2.0)) == [Close(1, (task["c"], task["d"]))]
    assert of(Close, machine.handle(Closed(1), 3.0)) == [Close(2, (task["e"], task["f"]))]


def test_who_has_a_contribution_in_the_next_model_is_not_asked_for_another():
    machine = begun(buffer=2, wait_for=3)
    task = tasks(seen(machine, "abc"))
    for client in "abc":
        machine.handle(Reported(task[client]), 1.0)
    machine.handle(Closed(0), 2.0)
    assert list(tasks(seen(machine, "cab", now=3.0))) == ["a", "b"]


def test_no_more_train_than_asked_for_and_who_came_first_is_asked_first():
    machine = begun(buffer=3, concurrency=2, wait_for=4)
    task = tasks(seen(machine, "zyxw"))
    assert list(task) == ["z", "y"]
    assert list(tasks(machine.handle(Reported(task["y"]), 1.0))) == ["x"]
    assert list(tasks(machine.handle(Dropped(task["z"], "busy"), 1.0))) == ["w"]


def test_a_client_has_one_task_at_a_time_and_one_for_each_model():
    machine = begun(buffer=1)
    task = tasks(seen(machine, "ab"))
    assert seen(machine, "ab") == []
    machine.handle(Reported(task["b"]), 1.0)
    assert list(tasks(machine.handle(Closed(0), 1.0))) == ["b"]  # a still has its first
    assert machine.handle(Dropped(task["a"], "busy"), 2.0)[1:] == [Issued("run-1-0-1", "a", 1, 0, 1)]


def test_a_task_expires_at_its_own_deadline():
    machine = begun(buffer=3, deadline_s=60.0)
    first = tasks(seen(machine, "a", now=0.0))["a"]
    second = tasks(seen(machine, "b", now=30.0))["b"]
    assert machine.due() == 60.0
    assert machine.handle(Tick(), 60.0) == [Settled(first, "expired", "the deadline came")]
    assert machine.due() == 90.0 and machine.status_of(second) == "issued"


def test_a_model_that_nobody_may_be_asked_for_is_given_up_and_tried_again():
    machine = begun(buffer=2, deadline_s=60.0, retries=1)
    task = tasks(seen(machine, "ab"))
    machine.handle(Reported(task["a"]), 1.0)
    machine.handle(Dropped(task["b"], "busy"), 1.0)
    assert seen(machine, "a", now=2.0) == []
    assert machine.due() == 61.0
    reason = "1 of 2 contributions came, and no more can"
    assert machine.handle(Tick(), 61.0) == [
        Abandoned(0, 0, reason), Became("waiting", reason), Became("open"), Opened(0, 1, 2, math.inf),
        Issued("run-0-1-0", "a", 0, 1, 0),
    ]  # fmt: skip
    assert machine.status_of(task["a"]) is None
    machine.handle(Dropped("run-0-1-0", "busy"), 62.0)
    machine.handle(Tick(), machine.due())
    assert machine.status == "paused" and machine.due() is None


def test_a_model_that_can_get_no_more_is_tried_again_once_enough_are_there():
    machine = begun(buffer=2, wait_for=2)
    task = tasks(seen(machine, "ab"))
    machine.handle(Reported(task["a"]), 1.0)
    machine.handle(Dropped(task["b"], "interrupted"), 1.0)
    assert seen(machine, "b", now=2.0) == []
    effects = machine.handle(Seen("a"), 3.0)
    assert effects[0] == Abandoned(0, 0, "1 of 2 contributions came, and no more can")
    assert list(tasks(effects)) == ["b", "a"]


def test_a_paused_run_makes_the_model_it_has_begun_asks_no_more_than_that_needs_and_keeps_what_is_left():
    machine = begun(buffer=2, wait_for=4, concurrency=4)
    task = tasks(seen(machine, "abcd"))
    machine.handle(Pause("lunch"), 1.0)
    for client in "abc":
        machine.handle(Reported(task[client]), 1.0)
    assert seen(machine, "e", now=2.0) == []
    assert machine.handle(Closed(0), 2.0) == [
        Settled(task["d"], "cancelled", "the run was paused"), Became("paused", "lunch"),
    ]  # fmt: skip
    machine.handle(Resume(), 3.0)
    effects = seen(machine, "fgh", now=3.0)
    other = tasks(effects)["e"]
    assert of(Close, machine.handle(Reported(other), 4.0)) == [Close(1, (task["c"], other))]


def test_contributions_wait_for_their_model_over_a_restart_of_a_paused_run():
    machine = BufferedMachine("run", rules=Rules(buffer=2), rounds=3)
    left = TaskRow("run-0-0-2", "c", 0, 0, 2, "counted", 2**-0.5)
    assert machine.restore(Snapshot("paused", "lunch", 1, 0, None, (left,)), 0.0) == []
    machine.handle(Resume(), 1.0)
    task = tasks(seen(machine, "cd", now=1.0))  # c's contribution is there already
    assert list(task) == ["d"]
    assert of(Close, machine.handle(Reported(task["d"]), 2.0)) == [Close(1, (left.task, task["d"]))]


def test_what_would_be_for_a_model_after_the_last_is_late():
    machine = begun(buffer=1, rounds=1, wait_for=2)
    task = tasks(seen(machine, "ab"))
    machine.handle(Reported(task["a"]), 1.0)
    assert [effect.status for effect in machine.handle(Reported(task["b"]), 1.0)] == ["late"]
    assert machine.handle(Closed(0), 2.0) == [Became("completed")]


def test_a_model_that_cannot_be_made_fails_the_run_and_drops_every_contribution():
    machine = begun(buffer=1, wait_for=3)
    task = tasks(seen(machine, "abc"))
    machine.handle(Reported(task["a"]), 1.0)
    machine.handle(Reported(task["b"]), 1.0)
    assert machine.handle(Broke("the disk is full"), 2.0) == [
        Settled(task["c"], "cancelled", "the model could not be made"), Abandoned(0, 0, "the disk is full"),
        Became("failed", "the disk is full"),
    ]  # fmt: skip
    machine.handle(Resume(), 3.0)
    assert of(Opened, seen(machine, "abc", now=3.0)) == [Opened(0, 1, 1, math.inf)]
    assert machine.status_of(task["b"]) is None


def test_rules_without_a_buffer_are_refused():
    with pytest.raises(SettingError, match="Rules\\(buffer=10\\)"):
        begun()
