"""A deployed client's turn is a simulated client's, to the bit."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.linear_model import SGDClassifier

import shoal
from shoal import (
    Clip,
    Collect,
    DiscreteGaussian,
    Gaussian,
    LocalGaussian,
    LocalLaplace,
    MatrixGaussian,
    Mean,
    Median,
    NoiseShare,
    Over,
    PlainSum,
    Quantize,
    RandomizedResponse,
    Remember,
    SecureSum,
    TopK,
    models,
)
from shoal.aggregation import Bounded, Finish
from shoal.algorithms import close_round, enter, open_round, start
from shoal.analytics import MeanAndVariance
from shoal.client import work
from shoal.errors import DataError, SettingError, UnsupportedError, WireError
from shoal.matrices import Tree
from shoal.turns import check_deployable, own_turn, take_turn
from shoal.wire.blobs import manifest_of, raw_chunks
from shoal.wire.payloads import check_payload, pack_payload, pack_tree, payload_schema, unpack_payload
from tests.conftest import classification

SITES = classification(sizes=(7, 3, 12, 5, 1, 40))
SKLEARN = models.SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))
GRID = Clip(0.5) >> Quantize(1e-3) >> PlainSum() >> Mean()
FALLING = shoal.schedules.cosine(0.5, rounds=5)
SPARSE_GRID = Remember(TopK(0.4)) >> Clip(0.5) >> Quantize(1e-3) >> PlainSum() >> Mean()
CASES = {
    "jax": shoal.FedAvg(models.logistic(4), epochs=2, batch_size=4),
    "jax, whole": shoal.FedAvg(models.mlp(4, hidden=(8,)), batch_size="all", epochs=3),
    "jax, a schedule": shoal.FedAvg(models.logistic(4), client_optimizer=shoal.sgd(FALLING)),
    "jax on a grid": shoal.FedAvg(models.logistic(4), epochs=2, batch_size=4, aggregation=GRID),
    "jax, remembering": shoal.FedAvg(models.logistic(4), aggregation=Remember(TopK(0.4)) >> PlainSum() >> Mean()),
    "jax, collected": shoal.FedAvg(models.logistic(4), aggregation=Clip(1.0) >> Collect() >> Median()),
    "sklearn": shoal.FedAvg(SKLEARN, epochs=2),
    "sklearn on a grid": shoal.FedAvg(SKLEARN, epochs=2, aggregation=GRID),
    "sklearn, remembering": shoal.FedAvg(SKLEARN, aggregation=SPARSE_GRID),
}  # fmt: skip


def deployed(algorithm, sites, *, rounds, seed):
    """A run in which nothing but bytes passes between the server and its clients, each of which knows only its own."""
    key = shoal.Key.from_seed(seed)
    run = start(algorithm, key)
    states = dict.fromkeys(sites.names)
    schema = payload_schema(algorithm)
    for number in range(rounds):
        model = pack_tree(jax.tree.map(np.asarray, open_round(algorithm, run)))
        at = key.split("round", number)
        total = None
        for name in sites.names:
            columns = {column: np.array(sites[name].rows(column)) for column in sites.columns}
            data = work.prepared(algorithm, columns, name=name)
            words = at.split("client", name)
            done = work.turn(algorithm, model, data, key=(words.high, words.low), state=states[name]).done()
            container = b"".join(raw_chunks([done.payload], manifest_of(done.payload, coding=done.coding)))
            check_payload(container, algorithm)
            payload = unpack_payload(container, schema)
            states[name] = done.state
            total = payload if total is None else total + payload
        run, _ = close_round(algorithm, run, total, at.split("server"))
    return run.state


@pytest.mark.parametrize("case", CASES)
def test_sites_that_exchange_nothing_but_bytes_give_the_model_of_the_local_simulation_to_the_bit(case):
    algorithm = CASES[case]
    simulated = shoal.simulate(shoal.Plan(algorithm, rounds=2), SITES, seed=5, runtime="local")
    state = deployed(algorithm, SITES, rounds=2, seed=5)
    assert np.linalg.norm(simulated.vector) > 0
    assert np.asarray(state.vector).tobytes() == simulated.vector.tobytes()


def test_torch_models_too():
    torch = pytest.importorskip(
        "torch", reason="needs torch, which the test command leaves out: run  make torch  and test again"
    )
    model = models.from_torch(torch.nn.Linear(4, 2), loss="cross_entropy")
    for aggregation in (shoal.weighted_mean(), GRID):
        algorithm = shoal.FedAvg(model, epochs=2, batch_size=4, aggregation=aggregation)
        simulated = shoal.simulate(shoal.Plan(algorithm, rounds=2), SITES, seed=5, runtime="local")
        state = deployed(algorithm, SITES, rounds=2, seed=5)
        assert np.asarray(state.vector).tobytes() == simulated.vector.tobytes()


def test_a_question_without_a_model_is_answered_as_in_a_simulation():
    algorithm = MeanAndVariance((4,))
    state = deployed(algorithm, SITES, rounds=1, seed=0)
    rows = SITES.columns["x"].astype(np.float64)
    np.testing.assert_allclose(state.mean, rows.mean(0), rtol=1e-12)
    assert state.count == len(rows)


@pytest.mark.parametrize("case", ["jax", "jax on a grid", "sklearn"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_give_zeros_that_count_for_nobody(case, bad):
    algorithm = CASES[case]
    model = pack_tree(jax.tree.map(np.asarray, open_round(algorithm, start(algorithm, shoal.Key.from_seed(0)))))
    x = np.ones((5, 4), np.float32)
    x[2, 1] = bad
    data = work.prepared(algorithm, {"x": x, "y": np.array([0, 1, 0, 1, 1])}, name="a")
    done = work.turn(algorithm, model, data, key=(1, 2), state=None).done()
    payload = unpack_payload(
        b"".join(raw_chunks([done.payload], manifest_of(done.payload, coding=done.coding))), payload_schema(algorithm)
    )
    assert done.clients == 0 and int(payload.clients) == 0
    assert not np.any(payload.value) and float(payload.weight) == 0
    with pytest.raises(DataError, match="a secure sum is not told of that by zeros"):
        work.turn(algorithm, model, data, key=(1, 2), state=None).done(bytes)


def test_what_a_client_remembers_travels_through_bytes_and_stays_out_of_the_payload():
    algorithm = CASES["jax, remembering"]
    assert work.remembers(algorithm) and not work.remembers(CASES["jax"])
    model = pack_tree(jax.tree.map(np.asarray, open_round(algorithm, start(algorithm, shoal.Key.from_seed(0)))))
    data = work.prepared(algorithm, {name: np.array(SITES["c0"].rows(name)) for name in "xy"}, name="c0")
    first = work.turn(algorithm, model, data, key=(1, 2), state=None).done()
    again = work.turn(algorithm, model, data, key=(1, 2), state=pack_tree(enter(algorithm))).done()
    assert first == again
    later = work.turn(algorithm, model, data, key=(1, 2), state=first.state).done()
    assert later.state != first.state
    with pytest.raises(WireError):
        work.turn(algorithm, model, data, key=(1, 2), state=pack_tree(np.zeros(3)))


def test_a_model_of_another_plan_is_not_trained():
    other = CASES["jax, whole"]
    model = pack_tree(jax.tree.map(np.asarray, open_round(other, start(other, shoal.Key.from_seed(0)))))
    data = work.prepared(CASES["jax"], {name: np.array(SITES["c0"].rows(name)) for name in "xy"}, name="c0")
    with pytest.raises(WireError):
        work.turn(CASES["jax"], model, data, key=(1, 2), state=None)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": np.ones((3, 5), np.float32), "y": np.zeros(3, int)}, "shape"),
        ({"x": np.ones((3, 4), np.float32)}, "'y'"),
        ({"x": np.ones((3, 4), np.float32), "y": np.array([0, 1, 7])}, "lie outside"),
        ({"x": np.ones((3, 4), np.float32), "y": np.zeros(2, int)}, "different numbers of rows"),
        ({"x": np.ones((0, 4), np.float32), "y": np.zeros(0, int)}, "no examples"),
        ({"x": ["a", "b"], "y": [0, 1]}, "numbers"),
    ],
)
def test_data_that_the_plan_cannot_learn_from_are_refused_before_any_turn(columns, said):
    with pytest.raises(DataError, match=said):
        work.prepared(CASES["jax"], columns, name="ward-3")


@pytest.mark.parametrize("name", ["jax on a grid", "sklearn on a grid"])
def test_a_share_of_noise_is_all_that_no_key_decides(name):
    algorithm, site = CASES[name], SITES[SITES.names[2]]
    grid = Clip(0.5) >> Quantize(1e-6)
    noisy = replace(algorithm, aggregation=grid >> NoiseShare(0.2, at_least=100) >> SecureSum(threshold=100) >> Over(9))
    plain = replace(algorithm, aggregation=grid >> SecureSum(threshold=100) >> Mean())
    key, run = shoal.Key.from_seed(1), start(plain, shoal.Key.from_seed(0))
    wanted, _ = take_turn(plain, open_round(plain, run), site, enter(plain), key)
    given = [own_turn(noisy, open_round(noisy, replace(run, aggregation=noisy.aggregation)), site, enter(noisy), key)[0]
             for _ in range(40)]  # fmt: skip
    shares = np.array([one.value - wanted.value for one in given]).astype(np.float64)
    deviation = 0.2 * noisy.aggregation.sensitivity(noisy.layout) / 1e-6 / 10
    low, high = chi2.ppf([1e-6, 1 - 1e-6], shares.size)
    assert low < np.sum((shares / deviation) ** 2) < high
    assert len({one.value.tobytes() for one in given}) == 40
    assert all(one.clients == 1 and not one.weight and not one.notes for one in given)
    same, _ = own_turn(plain, open_round(plain, run), site, enter(plain), key)
    assert np.array_equal(same.value, wanted.value)


class Cauchy(Finish[Bounded]):
    takes, private = (Bounded,), True

    def finish(self, sums, key):
        return sums.value


LOCAL = {
    "normal": Clip(0.5) >> LocalGaussian(1.0, 1e-6),
    "Laplace": LocalLaplace(2.0, 0.5),
    "lies": RandomizedResponse(1.0, ones=2),
}


@pytest.mark.parametrize("name", LOCAL)
def test_what_makes_a_contribution_private_is_drawn_by_the_client_and_not_by_the_key_that_the_server_knows(name):
    algorithm = replace(CASES["jax"], aggregation=LOCAL[name] >> PlainSum() >> Over(4))
    check_deployable(algorithm)
    site, key = SITES[SITES.names[2]], shoal.Key.from_seed(1)
    call = open_round(algorithm, start(algorithm, shoal.Key.from_seed(0)))
    given = [own_turn(algorithm, call, site, enter(algorithm), key)[0] for _ in range(60)]
    assert len({one.value.tobytes() for one in given}) > 10  # five answers have 32 outcomes
    assert all(one.clients == 1 and not one.weight and not one.notes for one in given)
    for one in given:
        check_payload(pack_payload(one), algorithm)
    step = algorithm.aggregation.steps[-1]
    values = np.array([one.value for one in given], np.float64)
    spread = np.sum((values - values.mean(axis=0)) ** 2) / (59 * values.shape[1])
    assert 0.6 < spread / step.deviation(0.5, algorithm.layout) ** 2 < 1.6
    if name == "lies":
        assert len(np.unique(values)) == 2
    longer = replace(given[0], value=given[0].value + np.float32(1e4))
    with pytest.raises(WireError, match="longer than the"):
        check_payload(pack_payload(longer), algorithm)


def test_chains_whose_protection_is_only_simulated_are_refused():
    quantized = Clip(0.5) >> Quantize(1e-3)
    for aggregation in (
        Clip(0.5) >> PlainSum() >> MatrixGaussian(1.0, clients=4, matrix=Tree(4, separation=2)),
        Clip(0.5) >> PlainSum() >> Cauchy(),
    ):
        with pytest.raises(UnsupportedError, match="simulated so far"):
            check_deployable(shoal.FedAvg(models.logistic(4), aggregation=aggregation))
    check_deployable(CASES["jax on a grid"])
    masked = quantized >> SecureSum(threshold=2) >> Mean()
    for aggregation in (
        masked,
        Clip(0.5) >> PlainSum() >> Gaussian(1.0, clients=4),
        quantized >> SecureSum(threshold=2) >> DiscreteGaussian(1.0, clients=4),
        quantized >> NoiseShare(0.1, at_least=2) >> SecureSum(threshold=2) >> Over(4),
    ):
        check_deployable(shoal.FedAvg(models.logistic(4), aggregation=aggregation))
    fine = Clip(0.5) >> Quantize(1e-6)
    for wide in (
        fine >> SecureSum(threshold=2) >> DiscreteGaussian(2.0, clients=4),
        fine >> NoiseShare(0.1, at_least=2) >> SecureSum(threshold=2) >> Over(4),
    ):
        with pytest.raises(SettingError, match="larger step in Quantize"):
            check_deployable(shoal.FedAvg(models.logistic(4), aggregation=wide))
    with pytest.raises(UnsupportedError, match="nothing but metrics"):
        check_deployable(shoal.FedEval(models.logistic(4), aggregation=masked))
