"""`shoal privacy` and the line in `shoal plan` say what the same calls in Python say."""

from __future__ import annotations

import json

import pytest

from shoal import LocalLaplace
from shoal.privacy import LocalReleases, Releases, noise_multiplier, rounds_for, spent

STUDY = """\
import shoal

chain = {chain}
plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), aggregation=chain), rounds=30, cohort={cohort})
population = shoal.Population.from_arrays([[1.0, 2.0, 3.0]] * 50, [0, 1] * 25, groups=list(range(50)))
"""
NOISED = "shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(4.0, clients=5)"


@pytest.fixture
def study(tmp_path):
    def written(cohort, chain=NOISED):
        path = tmp_path / "study.py"
        path.write_text(STUDY.format(chain=chain, cohort=cohort))
        return path

    return written


def test_a_study_is_priced_by_rounds_and_by_noise_and_told_what_an_epsilon_takes(shoal_command, study):
    done = shoal_command("privacy", study("5"), "--delta", "1e-3", "--epsilon", "2", "--json")
    said = json.loads(done.stdout)
    releases, asked = Releases(4.0, 30, 5), {"delta": 1e-3, "clients": 50}  # the study's own population
    assert said["epsilon"] == spent(releases, **asked).epsilon
    by_rounds = {row["rounds"]: row["epsilon"] for row in said["by_rounds"]}
    assert list(by_rounds) == [3, 8, 15, 22, 30, 60]
    assert by_rounds[60] == spent(releases, rounds=60, **asked).epsilon
    by_noise = {row["noise_multiplier"]: row["epsilon"] for row in said["by_noise"]}
    assert by_noise[8.0] == spent(Releases(8.0, 30, 5), **asked).epsilon
    takes = noise_multiplier(releases, epsilon=2, **asked), rounds_for(releases, epsilon=2, **asked)
    assert said["takes"] == {"epsilon": 2, "noise_multiplier": takes[0], "rounds": takes[1]}


def test_people_are_shown_two_tables(shoal_command, study):
    said = shoal_command("privacy", study("5"), "--delta", "1e-3").stdout
    answer = spent(Releases(4.0, 30, 5), delta=1e-3, clients=50)
    assert said.startswith(str(answer))
    rows = [tuple(line.split()) for line in said.splitlines()]
    assert ("30", f"{answer.epsilon:.4g}") in rows
    assert ("4", f"{answer.epsilon:.4g}") in rows


def test_a_study_that_is_private_on_each_client_is_priced_by_the_epsilon_of_one_contribution(shoal_command, study):
    path = study("None", "shoal.LocalLaplace(0.4, norm=1.0) >> shoal.PlainSum() >> shoal.Over(clients=50)")
    said = shoal_command("privacy", path, "--epsilon", "3").stdout
    releases, asked = LocalReleases(LocalLaplace(0.4, norm=1.0), 30, 4), {"delta": 1e-6}
    rows = [tuple(line.split()) for line in said.splitlines()]
    assert said.startswith(str(spent(releases, **asked)))
    assert ("of", "each", "epsilon") in rows
    assert ("0.1", f"{spent(LocalReleases(LocalLaplace(0.1, norm=1.0), 30), **asked).epsilon:.4g}") in rows
    assert f"at most: {rounds_for(releases, epsilon=3, **asked)}" in said


def test_a_study_whose_noise_is_correlated_is_priced_for_no_more_rounds_than_it_is_for(shoal_command, study):
    noise = "shoal.MatrixGaussian(4.0, clients=5, matrix=shoal.matrices.Blt(30, 10))"
    path = study("shoal.Rotation(5, separation=10)", f"shoal.Clip(1.0) >> shoal.PlainSum() >> {noise}")
    said = json.loads(shoal_command("privacy", path, "--epsilon", "3", "--json").stdout)
    assert [one["rounds"] for one in said["by_rounds"]] == [3, 8, 15, 22, 30]
    assert {one["epsilon"] for one in said["by_rounds"]} == {said["epsilon"]}
    assert said["epsilon"] == pytest.approx(spent(Releases(4.0, rounds=1), delta=1e-6).epsilon)
    assert said["takes"]["rounds"] == 30


def test_a_picture_is_saved_where_it_was_asked_for_and_else_nothing_is_computed(shoal_command, study, tmp_path):
    shoal_command("privacy", study("5"), "--delta", "1e-3", "--png", tmp_path / "spent.png")
    assert (tmp_path / "spent.png").read_bytes().startswith(b"\x89PNG")
    refused = shoal_command("privacy", "no.py", "--png", tmp_path / "spent.txt")
    assert "a picture is saved as .png, .svg, .pdf, .jpg" in str(refused.exception)


def test_a_study_without_noise_is_told_why_it_has_no_epsilon(shoal_command, study):
    said = shoal_command("privacy", study("None", "shoal.mean()")).stdout
    assert said.startswith("epsilon     none: no noise is added before Mean")
    assert json.loads(shoal_command("privacy", study("None", "shoal.mean()"), "--json").stdout)["epsilon"] is None


@pytest.mark.parametrize(
    ("cohort", "chain", "line"),
    [
        ("None", NOISED, f"{spent(Releases(4.0, 30), delta=1e-6).epsilon:.4g} at delta 1e-06"),
        ("5", NOISED, "not known: epsilon depends on how many clients"),
        ("None", "shoal.mean()", "none: no noise that is known protects one client"),
    ],
)
def test_a_plan_has_a_line_with_its_epsilon(shoal_command, study, cohort, chain, line):
    said = shoal_command("plan", study(cohort, chain)).stdout
    assert f"\nepsilon     {line}" in said


def test_a_simulation_with_noise_says_that_it_protects_nobody(shoal_command, study):
    sentence = "simulated: drawn from the seed, protects nobody"
    path = study("5")
    assert shoal_command("simulate", path).stdout.splitlines()[-1] == f"noise  {sentence}"
    assert json.loads(shoal_command("simulate", path, "--json").stdout)["noise"] == sentence
    small = json.loads(shoal_command("simulate", path, "--json", "--small-cohort", "2").stdout)
    assert small["noise"].startswith("simulated, scaled as in cohorts of 5: ")
    assert {row["clients"] for row in small["history"]} == {2}
