"""Rounds that are waited for: whom they ask, when they close, what follows when too few come."""

from __future__ import annotations

import math
import sys

import pytest

import shoal
from shoal.cohort import Everyone, Fixed, Fraction, Poisson, Rotation
from shoal.errors import SettingError, UnsupportedError
from shoal.rounds.events import (
    Abandoned,
    Became,
    Broke,
    Cancel,
    Close,
    Closed,
    Dropped,
    Gone,
    Issued,
    Opened,
    Pause,
    Refused,
    Reported,
    Resume,
    Sealed,
    Seen,
    Settled,
    Tick,
    Undone,
)  # fmt: skip
from shoal.rounds.rules import Rules
from shoal.rounds.snapshot import Snapshot, TaskRow
from shoal.rounds.synchronous import RunMachine
from shoal.simulation.cohorts import Cohorts

NAMES = tuple(f"site {place:02d}" for place in range(12))
KEY = shoal.Key.from_seed(5)


def begun(sampler=None, *, rounds=3, **rules):
    made = RunMachine("run", rules=Rules(**rules), sampler=sampler or Everyone(), rounds=rounds, key=KEY)
    assert made.restore(Snapshot(), 0.0) == []
    return made


def seen(machine, names=NAMES, now=0.0):
    return [effect for name in names for effect in machine.handle(Seen(name), now)]


def of(kind, effects):
    return [effect for effect in effects if isinstance(effect, kind)]


def report(machine, issued, now=1.0):
    return [effect for task in issued for effect in machine.handle(Reported(task.task), now)]


@pytest.mark.parametrize("sampler", [Everyone(), Fixed(5), Fraction(0.4), Poisson(0.5)], ids=str)
def test_where_everybody_is_there_the_cohorts_are_those_of_a_simulation(sampler):
    simulated = Cohorts(NAMES, sampler, KEY)
    machine = begun(sampler, rounds=4, wait_for=len(NAMES))
    for number in range(4):
        issued = of(Issued, seen(machine, reversed(NAMES)))  # whoever comes first
        assert [task.client for task in issued] == [NAMES[place] for place in simulated.draw(number).places]
        assert [task.position for task in issued] == list(range(len(issued)))
        (close,) = of(Close, report(machine, reversed(issued)))
        assert close == Close(number, tuple(task.task for task in issued))
        machine.handle(Closed(number), 2.0)
    assert machine.status == "completed"


def test_a_cohort_of_those_that_are_there_is_as_large_as_it_can_be():
    machine = begun(Fixed(5), wait_for=3)
    assert len(of(Issued, seen(machine, NAMES[:3]))) == 3


def test_over_selection_asks_more_and_closes_with_the_first_that_come():
    machine = begun(Fixed(4), wait_for=12, over_selection=1.5)
    issued = of(Issued, seen(machine))
    simulated = {NAMES[place] for place in Cohorts(NAMES, Fixed(4), KEY).draw(0).places}
    assert {task.client for task in issued[:4]} == simulated
    assert len(issued) == len({task.client for task in issued}) == 6
    first = [issued[5], issued[1], issued[2], issued[4]]
    effects = report(machine, first)
    assert {effect.task for effect in of(Settled, effects) if effect.status == "late"} == {"run-0-0-0", "run-0-0-3"}
    assert of(Close, effects) == [Close(0, ("run-0-0-1", "run-0-0-2", "run-0-0-4", "run-0-0-5"))]
    assert report(machine, issued) == []  # none counts after its round closed


def test_a_client_whose_task_comes_to_nothing_is_replaced_by_one_that_was_not_asked():
    machine = begun(Fixed(3), wait_for=6)
    issued = of(Issued, seen(machine, NAMES[:6]))
    for number, event in enumerate((Dropped(issued[0].task, "busy"), Refused(issued[1].task, "it holds NaN"))):
        settled, replaced = machine.handle(event, 1.0)
        assert settled.status == ("declined", "rejected")[number] and replaced.position == 3 + number
        assert replaced.client in NAMES[:6] and replaced.client not in {task.client for task in issued}
        issued.append(replaced)
    machine.handle(Gone(next(iter(machine.there))), 1.0)
    assert len(machine.handle(Dropped(issued[2].task, "busy"), 1.0)) == 1  # nobody is left to ask
    assert machine.handle(Seen(issued[0].client), 2.0) == []  # who was asked once in this round is not asked again
    assert len(of(Issued, machine.handle(Seen("another"), 3.0))) == 1


def test_a_round_closes_early_when_no_more_can_come():
    machine = begun(Fixed(3), at_least=2)
    issued = of(Issued, seen(machine, NAMES[:3]))
    report(machine, issued[:2])
    assert Close(0, ("run-0-0-0", "run-0-0-1")) in machine.handle(Dropped(issued[2].task, "no data"), 2.0)


def test_a_round_that_has_too_few_and_can_get_no_more_is_tried_again_once_enough_are_there():
    machine = begun(Fixed(3), at_least=3)
    issued = of(Issued, seen(machine, NAMES[:3]))
    report(machine, issued[:2])
    machine.handle(Dropped(issued[2].task, "interrupted"), 2.0)
    assert seen(machine, NAMES[:2], now=3.0) == []
    effects = machine.handle(Seen(NAMES[2]), 4.0)
    assert effects[0] == Abandoned(0, 0, "2 of at least 3 contributions came, and no more can")
    assert {task.client for task in of(Issued, effects)} == set(NAMES[:3])


def test_at_its_deadline_a_round_closes_with_those_that_came():
    machine = begun(Fixed(3), at_least=2, deadline_s=60.0)
    issued = of(Issued, seen(machine, NAMES[:3], now=10.0))
    assert report(machine, issued[:2]) == [Settled(task.task, "counted") for task in issued[:2]]
    assert machine.due() == 70.0 and machine.handle(Tick(), 69.9) == []
    expired, close = machine.handle(Tick(), 70.0)
    assert expired == Settled("run-0-0-2", "expired", "the round closed")
    assert close == Close(0, ("run-0-0-0", "run-0-0-1")) and machine.due() is None


def test_no_round_closes_with_fewer_than_the_minimum_it_is_tried_again_and_then_the_run_is_paused():
    machine = begun(Fixed(3), at_least=3, deadline_s=60.0, retries=1, wait_for=6)
    issued = of(Issued, seen(machine, NAMES[:6]))
    report(machine, issued[:2])
    effects = machine.handle(Tick(), 60.0)
    assert of(Abandoned, effects) == [Abandoned(0, 0, "2 of at least 3 contributions came in 60 s")]
    again = of(Issued, effects) + of(Issued, seen(machine, NAMES[:6], now=61.0))
    assert {task.attempt for task in again} == {1} and {task.task for task in again} == {
        f"run-0-1-{i}" for i in range(3)
    }
    effects = machine.handle(Tick(), machine.due())
    assert machine.status == "paused" and machine.due() is None
    assert machine.reason == "round 1 was abandoned 2 times: 0 of at least 3 contributions came in 60 s"
    assert effects[-1] == Became("paused", machine.reason)
    assert seen(machine, now=200.0) == []
    resumed = machine.handle(Resume(), 201.0)
    assert of(Opened, resumed) == [Opened(0, 2, 3, 261.0)]


def test_a_run_that_waits_too_long_opens_with_the_minimum_or_is_paused():
    machine = begun(Fixed(8), at_least=2, patience_s=100.0)
    assert machine.due() == 100.0  # though nobody has come yet
    seen(machine, NAMES[:2], now=50.0)
    assert of(Opened, machine.handle(Tick(), 100.0)) == [Opened(0, 0, 2, 3700.0)]
    lonely = begun(Fixed(8), at_least=2, patience_s=100.0)
    seen(lonely, NAMES[:1])
    assert lonely.handle(Tick(), 100.0) == [Became("paused", "round 1 waited 100 s for 2 clients; there: site 00")]


@pytest.mark.parametrize(
    ("sampler", "at_least", "wanted"),
    [(Everyone(), 3, 3), (Fixed(8), 3, 8), (Fraction(0.25), 3, 12), (Fraction(0.25), 1, 1), (Poisson(0.5), 3, 6)],
    ids=str,
)
def test_a_round_waits_for_as_many_as_make_the_minimum_of_a_cohort(sampler, at_least, wanted):
    machine = begun(sampler, at_least=at_least)
    assert seen(machine, NAMES[: wanted - 1]) == []
    assert of(Opened, machine.handle(Seen("z"), 0.0))


def test_an_empty_cohort_is_a_round_that_changes_nothing():
    keys = (shoal.Key.from_seed(seed) for seed in range(100))
    key = next(key for key in keys if not len(Poisson(0.1).draw(key.split("round", 0, "cohort"), 2)))
    machine = RunMachine("run", rules=Rules(wait_for=2), sampler=Poisson(0.1), rounds=1, key=key)
    assert seen(machine, NAMES[:2]) == [Became("open"), Opened(0, 0, 0, 3600.0), Close(0, ())]
    assert machine.handle(Closed(0), 1.0) == [Became("completed")]


def test_a_cohort_drawn_too_small_is_drawn_anew():
    machine = begun(Poisson(0.5), at_least=6, wait_for=12, retries=50)
    effects = seen(machine)
    drawn = [len(Poisson(0.5).draw(KEY.split("round", 0, "cohort"), 12))]
    while drawn[-1] < 6:
        drawn.append(len(Poisson(0.5).draw(KEY.split("round", 0, "try", len(drawn), "cohort"), 12)))
    assert [effect.cohort for effect in of(Opened, effects)] == drawn
    assert len(of(Issued, effects)) == drawn[-1]


def test_a_paused_run_finishes_its_round_and_opens_no_other():
    machine = begun(Fixed(2))
    issued = of(Issued, seen(machine, NAMES[:2]))
    assert machine.handle(Pause("lunch"), 1.0) == [Became("pausing", "lunch")]
    report(machine, issued)
    seen(machine, now=2.0)
    assert machine.handle(Closed(0), 3.0) == [Became("paused", "lunch")]
    assert of(Opened, machine.handle(Resume(), 4.0)) == [Opened(1, 0, 2, 3604.0)]


def test_a_cancelled_run_ends_at_once_and_its_open_round_counts_for_nothing():
    machine = begun(Fixed(2))
    issued = of(Issued, seen(machine, NAMES[:2]))
    report(machine, issued[:1])
    assert machine.handle(Cancel(), 2.0) == [
        Settled(issued[1].task, "cancelled", "the run was cancelled"), Abandoned(0, 0, "the run was cancelled"),
        Became("cancelled"),
    ]  # fmt: skip
    assert [*report(machine, issued), *seen(machine), *machine.handle(Resume(), 3.0)] == [] and machine.due() is None


def test_a_run_cancelled_while_a_model_is_made_keeps_that_model():
    machine = begun(Fixed(2))
    report(machine, of(Issued, seen(machine, NAMES[:2])))
    assert machine.handle(Cancel(), 2.0) == [Became("cancelling")]
    back = RunMachine("run", rules=Rules(), sampler=Fixed(2), rounds=3, key=KEY)
    tasks = tuple(TaskRow(f"run-0-0-{place}", NAMES[place], 0, 0, place, "counted") for place in range(2))
    closing = tuple(task.task for task in tasks)
    assert back.restore(Snapshot("cancelling", "", 0, 0, 2, tasks, closing), 3.0) == [Close(0, closing)]
    assert back.handle(Closed(0), 4.0) == [Became("cancelled")] and back.round == 1


def test_a_failed_run_is_resumed_from_its_last_closed_round_with_a_new_attempt():
    machine = begun(Fixed(2))
    report(machine, of(Issued, seen(machine, NAMES[:2])))
    assert machine.handle(Broke("the disk is full"), 2.0) == [
        Abandoned(0, 0, "the disk is full"), Became("failed", "the disk is full"),
    ]  # fmt: skip
    seen(machine, NAMES[:2], now=3.0)
    assert of(Opened, machine.handle(Resume(), 4.0)) == [Opened(0, 1, 2, 3604.0)]


def test_a_round_whose_opening_was_cut_short_is_not_closed_with_the_few_that_were_asked():
    machine = RunMachine("run", rules=Rules(), sampler=Fixed(4), rounds=1, key=KEY)
    half = tuple(TaskRow(f"run-0-0-{place}", NAMES[place], 0, 0, place, "issued") for place in range(2))
    effects = machine.restore(Snapshot("open", "", 0, 0, 4, half), 0.0)
    assert [effect.status for effect in of(Settled, effects)] == ["cancelled"] * 2
    assert len(of(Abandoned, effects)) == 1 and machine.status == "waiting"


def test_nobody_joins_an_attempt_that_is_sealed_also_after_a_restart():
    machine = begun(Fixed(3), wait_for=6, at_least=2)
    issued = of(Issued, seen(machine, NAMES[:6]))
    assert machine.handle(Sealed(0, 1), 1.0) == [] and machine.handle(Sealed(0, 0), 1.0) == []
    assert len(machine.handle(Dropped(issued[0].task, "its keys came too late"), 1.0)) == 1
    rows = tuple(TaskRow(task.task, task.client, 0, 0, task.position, "issued") for task in issued)
    back = RunMachine("run", rules=Rules(wait_for=6, at_least=2), sampler=Fixed(3), rounds=3, key=KEY)
    assert back.restore(Snapshot("open", "", 0, 0, 3, rows, None, sealed=True), 2.0) == []
    assert seen(back, NAMES[:6], now=2.0) == []
    assert back.handle(Dropped(issued[0].task, "interrupted"), 3.0) == [
        Settled(issued[0].task, "declined", "interrupted")
    ]
    effects = report(back, issued[1:], now=4.0)
    assert of(Close, effects) == [Close(0, (issued[1].task, issued[2].task))]


def test_an_attempt_that_is_undone_counts_for_nothing_and_the_round_is_tried_again_as_often_as_any():
    machine = begun(Fixed(2), retries=1, wait_for=2)
    issued = of(Issued, seen(machine, NAMES[:2]))
    report(machine, issued[:1])
    assert machine.handle(Undone(0, 1, "of another attempt"), 1.0) == []
    seen(machine, NAMES[:1], now=1.0)
    effects = machine.handle(Undone(0, 0, "too few shared"), 2.0)
    assert effects == [
        Settled(issued[1].task, "cancelled", "too few shared"), Abandoned(0, 0, "too few shared"),
        Became("waiting", "too few shared"),
    ]  # fmt: skip
    again = of(Issued, seen(machine, NAMES[:2], now=3.0))
    assert {task.attempt for task in again} == {1}
    report(machine, again, now=4.0)  # it is being closed
    effects = machine.handle(Undone(0, 1, "too few answered"), 5.0)
    assert effects == [
        Abandoned(0, 1, "too few answered"), Became("paused", "round 1 was abandoned 2 times: too few answered"),
    ]  # fmt: skip


def test_a_minimum_that_no_cohort_has_is_refused():
    with pytest.raises(SettingError, match="a cohort of 3 clients never has the 5 of at_least"):
        begun(Fixed(3), at_least=5)


def test_clients_that_take_turns_are_refused_until_a_server_keeps_them_apart():
    with pytest.raises(UnsupportedError, match="does not keep clients 4 rounds apart yet"):
        begun(Rotation(2, separation=4))


@pytest.mark.parametrize(
    "wrong",
    [{"at_least": 0}, {"at_least": 3, "wait_for": 2}, {"over_selection": 0.5}, {"deadline_s": 0.0},
     {"patience_s": math.inf}, {"retries": -1}, {"at_least": 3, "buffer": 2}, {"concurrency": 0}, {"most_stale": 1.5},
     {"stage_s": 0}],
    ids=str,
)  # fmt: skip
def test_rules_that_cannot_be_kept_are_refused(wrong):
    with pytest.raises(SettingError):
        Rules(**wrong)


def test_a_report_costs_the_same_in_a_round_of_any_size():
    def calls(clients):
        machine = begun(Fixed(clients))
        issued = of(Issued, seen(machine, [f"{place:05d}" for place in range(clients)]))
        counted = 0

        def count(*_):
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        machine.handle(Reported(issued[0].task), 1.0)
        sys.setprofile(None)
        return counted

    assert calls(3000) == calls(30)
