"""A simulation whose secure sums are run in full is the one that adds the same integers without masks."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import numpy as np
import pytest

import shoal
from shoal import (
    AdaptiveClip,
    Availability,
    Clip,
    DiscreteGaussian,
    Gaussian,
    Key,
    Mean,
    NoiseShare,
    Over,
    Quantize,
    Rehearsal,
    Remember,
    Rotate,
    SecureSum,
    TopK,
    Total,
    Weigh,
    models,
)
from shoal.algorithms import Local, enter, run_round, start
from shoal.errors import CheckpointError, RejectedError, SettingError, UnsupportedError
from shoal.turns import take_turn
from shoal.vector import Layout, Part
from tests.conftest import classification

RAGGED = classification(sizes=(7, 3, 12, 5, 1, 30))
LOGISTIC = models.logistic(4)
SUM = SecureSum(threshold=2)
SECURE = Clip(0.5) >> Quantize(1e-4) >> SUM >> Mean()


CHAINS = {
    "mean": SECURE,
    "total": Clip(0.5) >> Quantize(1e-2) >> SUM >> Total(),
    "16 bit": Clip(0.5) >> Quantize(1e-3) >> SUM >> Mean(),
    "weights": Clip(0.5) >> Weigh(5) >> Quantize(1e-4) >> SUM >> Mean(),
    "stochastic": Clip(0.5) >> Quantize(1e-3, "stochastic") >> SUM >> Mean(),
    "memory": Remember(TopK(0.4)) >> Clip(0.5) >> Quantize(1e-4) >> SUM >> Mean(),
    "noise shares": Clip(0.5) >> Quantize(1e-4) >> NoiseShare(0.1, at_least=2) >> SUM >> Over(4),
    "noise": Clip(0.5) >> Quantize(1e-4) >> SUM >> Gaussian(0.1, clients=4),
    "adaptive": AdaptiveClip(0.5) >> Quantize(1e-4) >> SUM >> Mean(),
    "adaptive, noise": AdaptiveClip(0.5) >> Rotate() >> Quantize(1e-4) >> SUM >> DiscreteGaussian(0.1, clients=4),
}


def plan_of(aggregation=SECURE, *, rounds=3, cohort=None, model=LOGISTIC):
    return shoal.Plan(shoal.FedAvg(model, aggregation=aggregation), rounds=rounds, cohort=cohort)


def rows(result):
    """The history without times."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]


def assert_equal_to_the_bit(full, unmasked):
    for one, other in zip(jax.tree.leaves(full.run), jax.tree.leaves(unmasked.run), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    assert full.run.aggregation == unmasked.run.aggregation
    assert rows(full) == rows(unmasked)


def both(plan, population=RAGGED, **settings):
    full = shoal.simulate(plan, population, secure="full", seed=3, **settings)
    return full, shoal.simulate(plan, population, runtime="local", seed=3, **settings)


@pytest.mark.parametrize("name", CHAINS)
def test_the_whole_protocol_gives_the_model_and_the_history_of_the_sum_without_masks_to_the_bit(name):
    full, unmasked = both(plan_of(CHAINS[name], cohort=4), test=RAGGED, every=2)
    assert_equal_to_the_bit(full, unmasked)
    assert np.linalg.norm(full.vector) > 0
    assert full.history.column("clients") == [4, 4, 4]
    assert (full.run.memory.setting not in (None, np.float32(0.5))) == name.startswith("adaptive")


@pytest.mark.parametrize("name", ["weights", "memory", "noise shares"])
def test_the_model_is_that_of_payloads_added_as_they_are(name):
    plan, key = plan_of(CHAINS[name]), Key.from_seed(3)
    run = start(plan.algorithm, key)
    states = {client: enter(plan.algorithm) for client in RAGGED}
    clients = {client: RAGGED[client] for client in RAGGED}
    for number in range(plan.rounds):
        done = run_round(plan.algorithm, run, clients, states, key.split("round", number), take_turn)
        run, states = done.run, done.states
    assert run.state.vector.tobytes() == shoal.simulate(plan, RAGGED, secure="full", seed=3).vector.tobytes()


@pytest.mark.parametrize("cohort", [None, 3, 0.5, shoal.Poisson(0.7)], ids=str)
def test_every_cohort_is_the_same_in_full(cohort):
    assert_equal_to_the_bit(*both(plan_of(cohort=cohort, rounds=4)))


def test_a_network_with_hidden_layers_and_loaded_clients_are_the_same_in_full():
    lazy = shoal.LazyPopulation.of({name: lambda name=name: columns(name) for name in RAGGED})
    plan = plan_of(model=models.mlp(4, hidden=(8,)), rounds=2)
    full, unmasked = both(plan, lazy)
    assert_equal_to_the_bit(full, unmasked)
    assert_equal_to_the_bit(full, shoal.simulate(plan, RAGGED, secure="full", seed=3))


def columns(name):
    return {column: RAGGED[name].rows(column) for column in RAGGED[name].columns}


def test_plain_python_is_the_same_in_full():
    from sklearn.linear_model import SGDClassifier

    model = models.SklearnModel(SGDClassifier(), features=4, classes=(0, 1))
    full, unmasked = both(plan_of(model=model))
    assert_equal_to_the_bit(full, unmasked)


def without_data(*names):
    x = RAGGED.columns["x"].copy()
    for name in names:
        x[RAGGED[name].start] = np.nan
    return RAGGED.with_column("x", x)


def test_clients_without_usable_data_drop_out_before_they_would_send_zeros():
    full, unmasked = both(plan_of(CHAINS["memory"]), without_data("c1", "c4"))
    assert_equal_to_the_bit(full, unmasked)
    assert full.history.column("rejected") == [2, 2, 2]
    assert full.history.column("clients") == [4, 4, 4]


def test_zeros_do_not_help_to_open_a_sum_of_too_few():
    chain = Clip(0.5) >> Quantize(1e-4) >> SecureSum(threshold=4) >> Mean()
    full = shoal.simulate(plan_of(chain, rounds=1), without_data("c1", "c2", "c4"), secure="full", seed=3)
    assert full.history.column("clients") == [0]
    assert any("3 clients contributed and it takes 4" in str(reason) for reason in full.failures)


@pytest.mark.parametrize("stage", ["confirm", "answer"])
def test_zeros_do_not_count_though_their_client_was_to_drop_out_later_anyway(stage):
    chain = Clip(0.5) >> Quantize(1e-4) >> SecureSum(threshold=4) >> Mean()
    later = Rehearsal(**{stage: 0.999})
    full = shoal.simulate(plan_of(chain, rounds=1), without_data("c1", "c2", "c4"), secure=later, seed=3)
    assert any("3 clients contributed and it takes 4" in str(reason) for reason in full.failures)


def test_with_drop_outs_the_sum_is_exactly_that_of_those_whose_contributions_came():
    rehearsal = Rehearsal(advertise=0.08, share=0.08, mask=0.1, confirm=0.05, answer=0.05)
    plan = plan_of(CHAINS["memory"], rounds=8)
    dropped = shoal.simulate(plan, RAGGED, secure=rehearsal, seed=5)
    gone = [rehearsal.gone(RAGGED, Key.from_seed(5).split("round", number).split("secure")) for number in range(8)]
    released = dropped.history.column("clients")
    assert 0 in released, "a round in which too many drop out"
    assert len({len(one) for one in gone}) > 1
    assert {stage for one in gone for stage in one.values()} == {"advertise", "share", "mask", "confirm", "answer"}

    def came(round, check):
        lost = {name for name, stage in gone[round - 1].items() if stage in ("advertise", "share", "mask")}
        return set(RAGGED) - lost if released[round - 1] else set()

    plain = shoal.simulate(plan, RAGGED, runtime="local", availability=Availability(online=came), seed=5)
    assert dropped.vector.tobytes() == plain.vector.tobytes()
    kept = [{name: value for name, value in row.items() if name != "lost"} for row in rows(dropped)]
    assert kept == rows(plain)
    for row, one in zip(rows(dropped), gone, strict=True):
        assert row.get("lost", 0) == sum(stage in ("advertise", "share", "mask") for stage in one.values())


def test_a_round_that_too_many_leave_changes_nothing_and_says_why():
    result = shoal.simulate(plan_of(), RAGGED, secure=Rehearsal(answer=0.99))
    assert result.history.column("released") == [False] * 3
    assert result.history.column("clients") == [0] * 3
    assert not result.vector.any()
    (why,) = {said.partition(" clients answered")[2] for said in result.failures}
    assert why == " and it takes 4: nothing is summed"
    with pytest.raises(RejectedError, match="clients answered and it takes 4"):
        shoal.simulate(plan_of(), RAGGED, secure=Rehearsal(answer=0.99), on_reject="stop")


def test_a_step_that_adapts_stays_as_it_is_in_a_round_that_releases_nothing():
    plan = plan_of(CHAINS["adaptive"], rounds=1)
    result = shoal.simulate(plan, RAGGED, secure=Rehearsal(answer=0.99))
    assert result.history.column("released") == [False]
    assert result.run.memory.setting == np.float32(0.5)


def test_fewer_clients_than_the_threshold_begin_no_secure_sum():
    result = shoal.simulate(plan_of(cohort=shoal.Poisson(0.15), rounds=6), RAGGED, secure="full", seed=1)
    assert "a secure sum of at least 2 clients was begun by 1" in result.failures
    rows_of_one = [row for row in rows(result) if not row.get("released", True)]
    assert all(row["clients"] == 0 and "loss" not in row for row in rows_of_one)


def test_fates_of_clients_are_as_likely_as_was_said_and_do_not_depend_on_each_other():
    names = [f"c{i}" for i in range(4000)]
    rehearsal = Rehearsal(advertise=0.1, mask=0.5)
    gone = rehearsal.gone(names, Key.from_seed(0))
    counts = {stage: sum(fate == stage for fate in gone.values()) for stage in ("advertise", "mask")}
    assert set(gone.values()) == {"advertise", "mask"}
    assert abs(counts["advertise"] - 400) < 4 * np.sqrt(4000 * 0.1 * 0.9)
    assert abs(counts["mask"] - 1800) < 4 * np.sqrt(4000 * 0.45 * 0.55)
    some = rehearsal.gone(names[::7], Key.from_seed(0))
    assert some == {name: gone[name] for name in names[::7] if name in gone}


@dataclass(frozen=True)
class Telling:
    """A client sends a vector of ones and says a number of its own as a metric."""

    aggregation: shoal.aggregation.Aggregation = field(default_factory=lambda: SECURE)
    layout = Layout((Part("w", (2,)),))
    traceable = False

    def check(self, data):
        pass

    def init(self, key):
        return np.zeros(2, np.float32)

    def broadcast(self, state, round):
        return state

    def enter(self):
        return np.int32(0)

    def local(self, message, data, client_state, key):
        return Local(np.ones(2, np.float32), 1, client_state + 1, {"told": np.array([data, 1.0])})

    def update(self, state, result, round):
        return state + result


@pytest.mark.parametrize("settings", [{"secure": "full"}, {"runtime": "local"}], ids=str)
def test_what_no_plan_declares_is_refused_and_the_round_goes_on(settings):
    plan = shoal.Plan(Telling(), rounds=1)
    result = shoal.simulate(plan, {"a": 0.25, "b": 1e30, "c": 0.5, "d": 0.125}, **settings)
    (row,) = rows(result)
    assert (row["clients"], row["rejected"], row["told"]) == (3, 1, pytest.approx(0.875 / 3))
    (why,) = result.failures
    assert why.startswith("'b': the note 'told' holds a number")
    assert "1e+30" not in why


def test_a_cohort_of_more_than_128_shares_with_neighbours_only_and_a_threshold_that_cannot_be_secure_is_refused():
    told = {f"c{i}": i / 8 for i in range(130)}

    def plan(threshold):
        chain = Clip(0.5) >> Quantize(1e-4) >> SecureSum(threshold) >> Mean()
        return shoal.Plan(Telling(chain), rounds=1)

    full = shoal.simulate(plan(124), told, secure=Rehearsal(mask=0.01), seed=1)
    gone = Rehearsal(mask=0.01).gone(told, Key.from_seed(1).split("round", 0).split("secure"))
    assert gone
    plain = shoal.simulate(plan(124), {name: one for name, one in told.items() if name not in gone}, runtime="local")
    assert full.state.tobytes() == plain.state.tobytes()
    assert full.history.column("told") == plain.history.column("told")
    with pytest.raises(SettingError, match=r"cannot be secure: a threshold of \d+ will do"):
        shoal.simulate(plan(60), told, secure="full")


def test_metrics_are_added_as_exactly_as_the_value():
    numbers = {f"c{i}": 2.0**20 + i * 2.0**-4 for i in range(9)}  # a float32 sum would round
    for settings in ({"secure": "full"}, {"runtime": "local"}):
        (row,) = rows(shoal.simulate(shoal.Plan(Telling(), rounds=1), numbers, **settings))
        assert row["told"] == float(np.float32(np.float32(sum(numbers.values())) / np.float32(9)))


def test_a_run_that_was_interrupted_goes_on_to_the_same_model(tmp_path):
    rehearsal, file = Rehearsal(mask=0.1), tmp_path / "run.shoal"
    plan = plan_of(CHAINS["memory"], rounds=6)
    with pytest.raises(KeyboardInterrupt):
        shoal.simulate(plan, RAGGED, secure=rehearsal, every=3, checkpoint=file, callbacks=[interrupt])
    again = shoal.simulate(plan, RAGGED, secure=rehearsal, every=3, checkpoint=file)
    assert_equal_to_the_bit(again, shoal.simulate(plan, RAGGED, secure=rehearsal, every=3))
    with pytest.raises(CheckpointError, match="of another runtime"):
        shoal.simulate(plan, RAGGED, secure="full", every=3, checkpoint=file)


def interrupt(rows, run):
    if int(run.round) == 3:
        raise KeyboardInterrupt


def test_what_cannot_run_in_full_is_refused_with_a_sentence():
    plain = shoal.Plan(shoal.FedAvg(LOGISTIC), rounds=1)
    with pytest.raises(SettingError, match=r"adds with PlainSum\(\), and a secure sum is what runs in full"):
        shoal.simulate(plain, RAGGED, secure="full")
    with pytest.raises(UnsupportedError, match="runs in the local runtime, not in 'compiled'"):
        shoal.simulate(plan_of(), RAGGED, secure="full", runtime="compiled")
    with pytest.raises(SettingError, match="secure is 'unmasked', 'full' or a Rehearsal"):
        shoal.simulate(plan_of(), RAGGED, secure=True)
    with pytest.raises(SettingError, match="mask is a probability of at least 0 and under 1, not 1"):
        Rehearsal(mask=1)
