"""The keyboard with an epsilon over a network: a server that is killed in the middle, and what its ledger says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import shoal
from shoal.client.policy import Policy
from shoal.demos import keyboard_private_report as report
from shoal.demos.keyboard_deployed import DELTA, Terms, federate, training
from shoal.demos.keyboard_private import Split
from shoal.privacy.budget import event_of
from tests.demos.test_keyboard import play


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("deployed")


@pytest.fixture(scope="module")
def found(here):
    folder = here / "plays" / "plays" / "tragedies"
    folder.mkdir(parents=True)
    (folder / "made-up.md").write_text(play(speeches=12), "utf-8")
    split = Split.of(shoal.shakespeare(here / "plays"), words=14)
    told = []
    done = federate(here, split, 4.0, 2, processes=1, tell=told.append)
    assert [said["name"] for said in told if said["event"] == "ended"] == ["the server"]
    assert sum(said["event"] == "ready" for said in told) == 2
    return done


def test_a_server_that_is_killed_after_its_ledger_has_a_release_finishes_within_the_budget(found):
    (run,) = found.ledger.runs
    assert (run.status, run.round, run.rounds) == ("completed", 2, 2)
    assert run.releases == {event_of(training(found.terms)): 3}  # two rounds, one of them closed twice
    assert found.ledger.budget.epsilon == 4
    assert 3.8 < found.spent.epsilon <= 4


def test_noise_is_planned_for_one_release_more_than_there_are_rounds():
    plan = training(Terms(4.0, rounds=3, roles=9, vocabulary=16))
    for rounds, within in ((4, True), (5, False)):
        assert (shoal.privacy.spent(replace(plan, rounds=rounds), delta=DELTA).epsilon <= 4) is within


def test_three_models_are_measured_by_the_share_of_words_that_they_guess(found):
    assert all(0 <= recall <= 1 for recall in (*found.network, *found.simulated, *found.without_noise))
    assert found.terms.roles == 3


def test_every_role_holds_the_plan_against_an_epsilon(found, here):
    policy = Policy.load(here / "policy.toml")
    assert (policy.minimum_cohort, policy.maximum_epsilon, policy.epsilon_delta) == (3, 4.0, DELTA)
    assert len({(here / f"role-0{place}" / "home" / "key.pem").read_bytes() for place in range(3)}) == 3


def test_the_report_says_what_the_ledger_says(found):
    lines = list(report.ledger(found))
    assert lines[0].split() == ["ledger", "3", "releases", "of", "2", "rounds"]
    assert any("at delta 1e-06" in line for line in lines)
    assert json.loads(json.dumps(report.deployed_data(found)))["ledger"]["budget"]["epsilon"] == 4
