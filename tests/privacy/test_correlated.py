"""Noise that is correlated between rounds, in plans: how much it is, what it gives away, and what is refused."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

import shoal
from shoal import Clip, MatrixGaussian, PlainSum, Plan, Quantize, Rotation, SecureSum, models, privacy
from shoal.aggregation import Payload
from shoal.algorithms import close_round, start
from shoal.errors import SettingError, UnsupportedError
from shoal.key import Key
from shoal.matrices import Banded, Blt, Tree
from shoal.privacy import Releases
from shoal.turns import check_deployable
from shoal.vector import Layout, Part
from tests.conftest import classification

MATRICES = [Tree(6, 3), Banded(6, 3), Blt(6, 3)]
CLIENTS = classification(sizes=(5,) * 12)
TURNS = Rotation(4, separation=3)


def study(matrix, *, multiplier=2.0, cohort=TURNS, rounds=6, summed=None):
    summed = summed or Clip(1.0) >> PlainSum()
    chain = summed >> MatrixGaussian(multiplier, clients=4, matrix=matrix)
    return Plan(shoal.FedAvg(models.logistic(4), aggregation=chain), rounds=rounds, cohort=cohort)


class Own(Blt):
    """Somebody's own matrix."""


def gaussian_epsilon(multiplier, delta):
    """Balle and Wang 2018, theorem 8."""

    def over(epsilon):
        a, b = 1 / (2 * multiplier), epsilon * multiplier
        return stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b) - delta

    return optimize.brentq(over, 0, 50)


@pytest.mark.parametrize("matrix", MATRICES)
def test_a_round_releases_the_sum_with_its_row_of_the_noise_over_a_public_number(matrix):
    layout = Layout((Part("w", (1000,)),))
    chain = Clip(3.0) >> PlainSum() >> MatrixGaussian(2.0, clients=4, matrix=matrix)
    value, memory, remembered = np.arange(1000, dtype=np.float32), chain.begin(layout), matrix.begin(1000)
    for number in range(6):
        key = Key.from_seed(1).split(number)
        release = chain.decode(
            Payload(value, np.float32(0), {}, np.int32(4)), key=key, layout=layout, memory=memory
        )  # fmt: skip
        noise, remembered = matrix.row(key, value, remembered)
        memory = release.memory
        np.testing.assert_allclose(release.value, (value + 2.0 * matrix.sensitivity * 3.0 * noise) / 4, rtol=1e-5)


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_rounds_together_give_away_as_much_as_one_sum_with_normal_noise(matrix):
    answer = privacy.spent(study(matrix), delta=1e-6)
    assert answer.epsilon == pytest.approx(gaussian_epsilon(2.0, 1e-6), rel=1e-3)
    assert answer.relation == "one client's contributions replaced by zeros"
    assert "without amplification" in answer.sampling


def test_the_noise_for_an_epsilon_does_not_depend_on_the_rounds_and_the_rounds_are_those_of_the_matrix():
    plan = study(Blt(6, 3))
    multiplier = privacy.noise_multiplier(plan, epsilon=1.5, delta=1e-6)
    assert gaussian_epsilon(multiplier, 1e-6) == pytest.approx(1.5, rel=0.01)
    assert [privacy.rounds_for(plan, epsilon=epsilon, delta=1e-6) for epsilon in (0.5, 3.0)] == [0, 6]


def test_runs_whose_noise_is_correlated_are_each_one_event_with_others():
    correlated = privacy.together([study(Blt(6, 3)), study(Tree(6, 3))], delta=1e-6)
    assert correlated.epsilon == pytest.approx(gaussian_epsilon(2.0 / math.sqrt(2), 1e-6), rel=1e-3)


def test_without_correlation_a_client_of_a_rotation_counts_in_the_rounds_it_can_be_in():
    chain = Clip(1.0) >> PlainSum() >> shoal.Gaussian(4.0, clients=4)
    plan = Plan(shoal.FedAvg(models.logistic(4), aggregation=chain), rounds=7, cohort=TURNS)
    answer = privacy.spent(plan, delta=1e-6)  # rounds 1, 4 and 7 at most
    assert answer.epsilon == pytest.approx(gaussian_epsilon(4.0 / math.sqrt(3), 1e-6), rel=1e-3)
    assert answer.relation == "one client's contributions replaced by zeros"


def test_the_runtimes_agree():
    whole, local = (shoal.simulate(study(MATRICES[0]), CLIENTS, runtime=name) for name in ("compiled", "local"))
    np.testing.assert_allclose(whole.vector, local.vector, atol=2e-6)


def test_a_run_goes_on_from_a_checkpoint_with_the_noise_it_remembers(tmp_path):
    def third(rows, run):
        return bool(run.round == 3)

    kept = {"checkpoint": tmp_path / "run", "every": 3}
    assert shoal.simulate(study(MATRICES[0]), CLIENTS, callbacks=[third], **kept).stopped
    resumed = shoal.simulate(study(MATRICES[0]), CLIENTS, **kept)
    np.testing.assert_array_equal(resumed.vector, shoal.simulate(study(MATRICES[0]), CLIENTS).vector)


def test_a_round_below_a_threshold_has_its_row_of_the_noise_all_the_same():
    plan = study(Blt(6, 3), summed=Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=3))
    run = start(plan.algorithm, Key.from_seed(0))
    value = np.zeros(plan.algorithm.layout.size, np.int32)
    few = Payload(value, np.float32(0), {}, np.int32(2))
    closed, report = close_round(plan.algorithm, run, few, Key.from_seed(1))
    assert not report.released
    np.testing.assert_array_equal(closed.state.vector, run.state.vector)
    _, expected = Blt(6, 3).row(Key.from_seed(1), np.float32(value), Blt(6, 3).begin(value.size))
    np.testing.assert_allclose(closed.memory.noise, expected, rtol=1e-6)


@pytest.mark.parametrize("cohort", [None, 4, 1 / 3, shoal.Poisson(0.3), Rotation(4, separation=2)])
def test_a_cohort_that_may_bring_a_client_back_too_soon_is_refused(cohort):
    with pytest.raises(SettingError, match=r"come again after 3 rounds, .*cohort=Rotation\(clients, separation=3\)"):
        study(Blt(6, 3), cohort=cohort)
    with pytest.raises(SettingError, match="come again after 3 rounds"):
        Releases(2.0, 6, cohort, matrix=Blt(6, 3))


def test_more_rounds_than_the_noise_is_for_are_refused():
    with pytest.raises(SettingError, match=r"is for 6 rounds, and the plan has 7: say Blt\(7, 3\)"):
        study(Blt(6, 3), rounds=7)
    with pytest.raises(SettingError, match="is for 6 rounds"):
        privacy.spent(study(Blt(6, 3)), delta=1e-6, rounds=7)


def test_everyone_in_each_round_is_a_separation_of_one():
    assert study(Banded(6, 1), cohort=None).sampler == shoal.Everyone()


def test_a_matrix_of_ones_own_runs_and_has_no_epsilon():
    answer = privacy.spent(study(Own(6, 3)), delta=1e-6)
    assert answer.epsilon == math.inf
    assert answer.why.endswith("Own(rounds=6, separation=3, buffers=2): it knows Banded, Blt and Tree")


def test_no_server_and_no_client_runs_it_yet():
    with pytest.raises(UnsupportedError, match="noise of MatrixGaussian is simulated so far"):
        check_deployable(study(Blt(6, 3)).algorithm)


def test_it_is_noise_like_another_in_a_chain():
    with pytest.raises(SettingError, match="a matrix of noise is Blt"):
        MatrixGaussian(1.0, clients=4, matrix=3)
    with pytest.raises(shoal.errors.OrderError, match="put Clip"):
        PlainSum() >> MatrixGaussian(1.0, clients=4, matrix=Blt(6, 3))
    assert (Clip(1.0) >> PlainSum() >> MatrixGaussian(1.0, clients=4, matrix=Blt(6, 3))).private
