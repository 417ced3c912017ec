"""Clients that come and go: who is waited for, who is lost, and what is said when too few come."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import models
from shoal.cohort import Fixed, Poisson, Rotation
from shoal.errors import SettingError, TooFewClientsError
from shoal.simulation.cohorts import Cohorts
from tests.conftest import classification

RAGGED = classification(sizes=(7, 3, 12, 5, 1, 9, 4, 30))
FEDAVG = shoal.FedAvg(models.logistic(4))
NAMES = tuple(f"c{place}" for place in range(200))


def cohorts(sampler, availability, *, least=0, seed=0):
    return Cohorts(NAMES, sampler, shoal.Key.from_seed(seed), least, availability)


def test_clients_are_there_and_are_lost_with_the_probabilities_asked_for():
    drawn = [cohorts(Fixed(100), shoal.Availability(online=0.3, drop_out=0.25)).draw(number) for number in range(300)]
    kept = np.array([len(cohort.places) for cohort in drawn])
    lost = np.array([cohort.lost for cohort in drawn])
    # 60 of 200 are there, fewer than the 100 asked for, so all of them are chosen: 45 stay. Four standard errors.
    assert abs(kept.mean() - 45) < 4 * np.sqrt(200 * 0.225 * 0.775 / 300)
    assert abs((kept + lost).mean() - 60) < 4 * np.sqrt(200 * 0.3 * 0.7 / 300)


def test_where_everyone_is_always_there_the_cohorts_are_the_usual_ones():
    usual, there = cohorts(Fixed(20), None), cohorts(Fixed(20), shoal.Availability())
    for number in range(5):
        np.testing.assert_array_equal(usual.draw(number).places, there.draw(number).places)


def test_in_a_rotation_nobody_stands_in_for_a_client_that_is_away():
    usual, some = (cohorts(Rotation(20, separation=10), there) for there in (None, shoal.Availability(online=0.5)))
    for number in range(12):
        assert set(some.draw(number).places) < set(usual.draw(number).places)


def test_a_round_waits_until_enough_clients_are_there():
    def online(round, check):
        return ["c1", "c5"] if check < 4 else ["c1", "c5", "c7"]

    cohort = cohorts(Fixed(10), shoal.Availability(online=online), least=3).draw(0)
    assert cohort.places.tolist() == [1, 5, 7]
    assert cohort.waited == 3


@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_a_round_that_waits_too_long_says_who_was_missing(runtime):
    plan = shoal.Plan(FEDAVG, rounds=5, cohort=4, min_clients=3)
    shown = []

    def online(round, check):
        return ["c0", "c1"] if round == 3 else list(RAGGED)

    with pytest.raises(TooFewClientsError) as error:
        shoal.simulate(
            plan, RAGGED, availability=shoal.Availability(online=online, patience=7), runtime=runtime,
            every=1, test=lambda state: shown.append(1) or {},
        )  # fmt: skip
    assert str(error.value).startswith(
        "round 3 needs at least 3 clients and had 2 after looking 7 times; missing: 'c2', 'c3', 'c4', 'c5', 'c6' and "
        "1 more."
    )
    assert len(shown) == 2  # the rounds before it were run


def test_rounds_before_the_one_that_fails_are_not_lost(tmp_path):
    plan = shoal.Plan(FEDAVG, rounds=40, cohort=4, min_clients=3)
    calls = []

    def online(round, check):
        calls.append(round)
        return RAGGED.names if round < 30 or len(calls) > 100 else ("c0",)

    gone = shoal.Availability(online=online, patience=2)
    kept = tmp_path / "run.shoal"
    with pytest.raises(TooFewClientsError, match="round 30"):
        shoal.simulate(plan, RAGGED, availability=gone, checkpoint=kept)
    calls.extend([0] * 100)  # now they are back
    resumed = shoal.simulate(plan, RAGGED, availability=gone, checkpoint=kept)
    assert min(calls[-11:]) == 30  # and no earlier round was run again
    whole = shoal.simulate(plan, RAGGED, availability=shoal.Availability())
    np.testing.assert_array_equal(resumed.vector, whole.vector)


@pytest.mark.parametrize("runtime", ["auto", "local"])
def test_the_history_counts_who_was_lost_and_how_often_a_round_waited(runtime):
    plan = shoal.Plan(FEDAVG, rounds=30, cohort=5, min_clients=4)
    availability = shoal.Availability(online=0.6, drop_out=0.2)
    history = shoal.simulate(plan, RAGGED, availability=availability, runtime=runtime).history
    assert all(clients >= 4 for clients in history.column("clients"))
    assert all(row["clients"] + row.get("lost", 0) <= 5 for row in history)
    assert sum(history.column("lost")) > 0
    assert sum(history.column("waited")) > 0


def test_the_runtimes_agree_where_clients_come_and_go():
    plan = shoal.Plan(FEDAVG, rounds=10, cohort=5, min_clients=2)
    availability = shoal.Availability(online=0.6, drop_out=0.2)
    one, other = (shoal.simulate(plan, RAGGED, availability=availability, runtime=r) for r in ("auto", "local"))
    np.testing.assert_allclose(one.vector, other.vector, rtol=1e-5, atol=1e-6)


def test_a_poisson_cohort_under_the_minimum_fails():
    with pytest.raises(TooFewClientsError, match="needs at least 50 clients and had"):
        cohorts(Poisson(0.1), None, least=50).draw(0)


def test_a_minimum_is_part_of_the_plan():
    plan = shoal.Plan(FEDAVG, rounds=5, cohort=4, min_clients=3)
    assert plan.digest() != shoal.Plan(FEDAVG, rounds=5, cohort=4).digest()
    assert "5, 4 clients in each, at least 3" in str(plan)
    with pytest.raises(SettingError, match="never has the 9 of min_clients"):
        shoal.simulate(shoal.Plan(FEDAVG, rounds=5, cohort=4, min_clients=9), RAGGED)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"online": 0}, "online is a probability"),
        ({"online": "always"}, "online is a probability"),
        ({"drop_out": 1}, "drop_out is a probability"),
        ({"patience": 0}, "at least once"),
    ],
)
def test_nonsense_is_refused(wrong, sentence):
    with pytest.raises(SettingError, match=sentence):
        shoal.Availability(**wrong)


@pytest.mark.parametrize(
    ("online", "sentence"),
    [(lambda r, c: ["nobody"], "names 'nobody', which is no client"), (lambda r, c: 3, "gives the names of clients")],
)
def test_a_function_that_does_not_give_clients_is_told_so(online, sentence):
    with pytest.raises(SettingError, match=sentence):
        cohorts(Fixed(2), shoal.Availability(online=online)).draw(0)
