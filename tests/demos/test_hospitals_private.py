"""The hospitals with an epsilon: what is planned, what is spent, what is said of it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import shoal
from shoal.cli import demo
from shoal.demos import private_report
from shoal.demos.hospitals_deployed import Terms, simulated, tables
from shoal.demos.hospitals_network import Left
from shoal.demos.hospitals_private import DELTA, MEANT, NORM, SCALE, deployed, learn, study, training, without_noise
from shoal.demos.hospitals_private_network import PrivatelyDeployed
from shoal.errors import SettingError

WAYS = ["federated, standardised", "scaled by what is meant", "clipped", "noise, epsilon 4"]


@pytest.fixture(scope="module")
def found():
    return study(4.0, seeds=1, rounds=3)


def shown(*parts):
    console = Console(width=120, file=io.StringIO())
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def test_every_plan_spends_nearly_epsilon_and_no_more(found):
    for secure in (False, True):
        spent = shoal.privacy.spent(deployed(Terms(3, secure, epsilon=4.0)), delta=DELTA)
        assert 3.8 < spent.epsilon <= 4
    assert found.spent == shoal.privacy.spent(training(4.0, 3), delta=DELTA)


def test_no_hospital_moves_the_sum_by_more_than_the_norm():
    plan = training(4.0, 3)
    assert plan.algorithm.aggregation.sensitivity(plan.algorithm.layout) == NORM
    assert not without_noise(plan).algorithm.aggregation.private


def test_features_are_scaled_without_a_look_at_the_patients():
    rows = shoal.hospitals()["Cleveland"].rows("x")
    scaled = SCALE.apply(shoal.hospitals())["Cleveland"].rows("x")
    mean, deviation = MEANT["age"]
    np.testing.assert_allclose(scaled[:, 0], (rows[:, 0] - mean) / deviation, rtol=1e-5)
    np.testing.assert_allclose(scaled[:, 1], 2 * rows[:, 1] - 1)


def test_noise_costs_something_and_leaves_more_than_a_guess(found):
    assert [line.way for line in found.study.lines] == WAYS
    measured = {way: found.study.accuracy(way) for way in WAYS}
    assert measured["clipped"] == pytest.approx(measured["federated, standardised"], abs=0.05)
    assert 0.55 < measured["noise, epsilon 4"] < measured["clipped"]


def test_what_a_server_is_asked_for_is_one_run_of_training():
    asked = []

    def ask(name, plan):
        asked.append((name, plan))
        return simulated(tables())(name, plan)

    terms = Terms(2, secure=True, epsilon=1e6)
    vector = np.array(learn(ask, terms))
    assert asked == [("heart-training", deployed(terms))]
    unmasked = simulated(tables())("x", without_noise(deployed(terms)))[0].vector
    assert np.linalg.norm(vector - unmasked) < 0.25 * np.linalg.norm(unmasked)


def test_the_report_states_epsilon_delta_relation_and_that_noise_is_simulated(found):
    text = shown(*private_report.tables(found), str(found.spent), private_report.SIMULATED)
    for said in (*WAYS, "at delta 1e-06", "one client, with all its data, added or removed", "simulated noise"):
        assert said in text
    told = json.loads(json.dumps(private_report.data(found)))
    assert told["spent"]["delta"] == DELTA
    assert [row["trained"] for row in told["rows"]] == WAYS


@pytest.mark.parametrize(
    ("secure", "sees"), [(False, "its server sees each hospital's change"), (True, "its server sees sums of hospitals")]
)
def test_the_networks_report_says_what_the_server_sees_and_what_left(found, secure, sees):
    left = (Left("Cleveland", 303, 5, 1000, 37, 20000, sound=True),)
    terms = Terms(3, secure, epsilon=4.0)
    deployed = PrivatelyDeployed(found.spent, 0.75, (0.74, 0.05), 0.81, (0.5,), 9.0, left, terms)
    text = shown(*private_report.deployed_tables(deployed))
    for said in (sees, "0.740 ± 0.050", "0.810", "Cleveland", "20,000"):
        assert said in text
    assert json.loads(json.dumps(private_report.deployed_data(deployed)))["terms"]["epsilon"] == 4


def test_the_command_prints_what_it_spent():
    done = CliRunner().invoke(
        demo.app, ["hospitals", "--simulate", "--epsilon", "4", "--seeds", "1", "--rounds", "3", "--json"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["noise"] == "simulated"
    assert 3.8 < told["spent"]["epsilon"] <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--secure", "--kill", "mask"], "leave out --epsilon"),
        (["--simulate", "--seeds", "0"], "at least one split"),
        (["--epsilon", "0"], "epsilon is over 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    done = CliRunner().invoke(demo.app, ["hospitals", "--epsilon", "4", *options])
    assert isinstance(done.exception, SettingError)
    assert message in str(done.exception)
