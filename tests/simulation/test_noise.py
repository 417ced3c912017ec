"""What a simulation says of its noise, and small cohorts that stand in for large ones."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet
import pytest

import shoal
from shoal import (
    Clip,
    DiscreteGaussian,
    Gaussian,
    History,
    MatrixGaussian,
    NoiseShare,
    Over,
    PlainSum,
    Poisson,
    Quantize,
    Rotation,
    SecureSum,
    Skellam,
)
from shoal.errors import SettingError, UnsupportedError
from tests.conftest import classification
from tests.privacy.sending import Sending

SIZE = 20_000
SAID = "noise  simulated: drawn from the seed, protects nobody"
NOISED = Clip(1.0) >> PlainSum() >> Gaussian(2.0, clients=1000)


def plan(chain, cohort=None, rounds=2):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(4), aggregation=chain), rounds=rounds, cohort=cohort)


def silent(chain, cohort=None, **more):
    return shoal.Plan(Sending(chain, SIZE), rounds=1, cohort=cohort, **more)


CLIENTS = {str(place): np.zeros(SIZE) for place in range(12)}


def test_every_row_and_every_print_of_a_plan_with_noise_say_that_it_is_simulated():
    result = shoal.simulate(plan(NOISED), classification())
    assert result.history.column("noise") == ["simulated"] * 2
    assert str(result).splitlines()[-1] == str(result.history).splitlines()[-1] == SAID
    assert "noise" not in str(result).splitlines()[0]


def test_a_plan_without_noise_says_nothing_of_it():
    result = shoal.simulate(plan(shoal.mean()), classification())
    assert result.history.noise is None
    assert "noise" not in result.history.names
    assert "noise" not in str(result)


def test_the_logs_and_the_picture_say_so_too(tmp_path):
    logs = [shoal.CsvLog(tmp_path / "log.csv"), shoal.ParquetLog(tmp_path / "log.parquet"),
            shoal.TensorBoard(tmp_path / "board")]  # fmt: skip
    history = shoal.simulate(plan(NOISED), classification(), callbacks=logs).history
    head, *lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[head.split(",").index("noise")] for line in lines] == ["simulated"] * 2
    assert pyarrow.parquet.read_table(tmp_path / "log.parquet")["noise"].to_pylist() == ["simulated"] * 2
    (events,) = (tmp_path / "board").iterdir()
    assert events.read_bytes().count(b"simulated") == 1
    assert history.plot().get_supxlabel() == "noise: simulated: drawn from the seed, protects nobody"


@pytest.mark.parametrize("finish", [Gaussian, DiscreteGaussian, Skellam])
@pytest.mark.parametrize("meeting", [PlainSum(), SecureSum(threshold=500)], ids=str)
def test_the_mean_of_a_small_cohort_is_as_noisy_as_that_of_the_cohort_it_stands_in_for(finish, meeting):
    chain = Clip(1.0) >> Quantize(1e-4) >> meeting >> finish(2.0, clients=1000)
    large = silent(chain, cohort=1000, min_clients=100)
    result = shoal.simulate(large, CLIENTS, small_cohort=10)
    assert result.history.column("clients") == [10]
    deviation = 2.0 * chain.sensitivity(large.algorithm.layout) / 1000
    assert np.std(result.vector) == pytest.approx(deviation, rel=4 / np.sqrt(2 * SIZE))
    assert result.history.noise.startswith("simulated, scaled as in cohorts of 1,000: ")


def test_the_signal_of_a_small_cohort_is_its_own_mean():
    clients = {name: np.full(SIZE, 1 / np.sqrt(SIZE)) for name in CLIENTS}
    found = shoal.simulate(silent(NOISED, Poisson(0.01)), clients, small_cohort=4).vector
    assert found.mean() == pytest.approx(1 / np.sqrt(SIZE), abs=5 * 2.0 / 1000 / np.sqrt(SIZE))


def test_a_small_cohort_is_not_in_the_plan_and_changes_no_price():
    large = plan(NOISED, Poisson(0.001))
    before = shoal.privacy.spent(large, delta=1e-6)
    ran = shoal.simulate(large, classification(), small_cohort=3).plan
    assert shoal.privacy.spent(large, delta=1e-6) == before
    assert ran.digest() != large.digest()
    assert shoal.privacy.spent(ran, delta=1e-6, clients=4).epsilon > 100 * before.epsilon, (
        "what ran is not what is sold"
    )


def test_a_small_cohort_takes_turns_as_that_of_its_plan():
    chain = Clip(1.0) >> PlainSum() >> MatrixGaussian(2.0, clients=100, matrix=shoal.matrices.Tree(2, 2))
    large = plan(chain, Rotation(100, separation=2))
    ran = shoal.simulate(large, classification(), small_cohort=2).plan
    assert ran.sampler == Rotation(2, separation=2)
    assert ran.algorithm.aggregation.finish == MatrixGaussian(0.04, clients=2, matrix=shoal.matrices.Tree(2, 2))


def test_a_small_cohort_of_all_clients_is_the_plan():
    large = plan(Clip(1.0) >> PlainSum() >> Gaussian(2.0, clients=3), cohort=3)
    plain, small = (shoal.simulate(large, classification(), small_cohort=small) for small in (None, 3))
    assert np.array_equal(plain.vector, small.vector)


SHARED = Clip(1.0) >> Quantize(1e-3) >> NoiseShare(1.0, at_least=5) >> SecureSum(threshold=5) >> Over(9)


@pytest.mark.parametrize(
    ("chain", "small", "why"),
    [(NOISED, 1001, "at most the 1,000 clients"), (NOISED, 0, "at least one client"), (shoal.mean(), 3, "adds none"),
     (SHARED, 3, "Over adds none")],
)  # fmt: skip
def test_a_small_cohort_that_makes_no_sense_is_refused(chain, small, why):
    with pytest.raises(SettingError, match=why):
        shoal.simulate(plan(chain), classification(), small_cohort=small)


def test_an_algorithm_whose_chain_is_its_own_affair_is_refused():
    class Closed:
        traceable, aggregation = False, NOISED

        def local(self, message, data, client_state, key):
            raise AssertionError("it is refused before")

    with pytest.raises(UnsupportedError, match="Closed has no field `aggregation`"):
        shoal.simulate(shoal.Plan(Closed(), rounds=1), CLIENTS, small_cohort=3)


def test_a_history_of_two_kinds_of_noise_names_both():
    history = History(({"round": 1, "noise": "simulated"}, {"round": 2, "noise": "simulated, scaled"}))
    assert history.noise.startswith("simulated; simulated, scaled: ")
