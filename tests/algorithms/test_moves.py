"""The three moves: what a round does with what clients send, and with clients that send nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

import shoal
from shoal.aggregation import Aggregation
from shoal.algorithms import Local, client_turn, close_round, enter, open_round, run_round, start
from shoal.key import Key
from shoal.vector import Layout, Part


@dataclass(frozen=True)
class Sending:
    """An algorithm in plain Python on arbitrary data: a client sends its own vector and counts its turns."""

    aggregation: Aggregation = field(default_factory=shoal.mean)
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
        return Local(np.asarray(data, np.float32), 1, client_state + 1, {"size": np.array([np.sum(data), 1])})

    def update(self, state, result, round):
        return state + result


def one_round(algorithm, clients, states=None):
    states = states or {name: enter(algorithm) for name in clients}
    return run_round(algorithm, start(algorithm, Key.from_seed(0)), clients, states, Key.from_seed(1))


def test_a_round_is_its_three_moves():
    algorithm = Sending()
    run = start(algorithm, Key.from_seed(0))
    call = open_round(algorithm, run)
    payloads = [client_turn(algorithm, call, d, enter(algorithm), Key.from_seed(0))[0] for d in ([1, 2], [3, 6])]
    closed, report = close_round(algorithm, run, payloads[0] + payloads[1], Key.from_seed(0))
    assert closed.state.tolist() == [2, 4]
    assert closed.round == 1
    assert report.clients == 2
    assert report.metrics["size"].tolist() == [12, 2]


def test_any_python_object_can_be_a_clients_data_and_states_stay_with_clients():
    clients = {"a": [1, 2], "b": (3, 6)}
    result = shoal.simulate(shoal.Plan(Sending(), rounds=3, cohort=1), clients, seed=5)
    assert [row["clients"] for row in result.history] == [1, 1, 1]
    assert result.run.round == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_contribution_that_is_not_finite_counts_for_nobody_and_changes_nothing_else(bad):
    clients = {"a": [1, 2], "bad": [bad, 0], "b": [3, 6]}
    done = one_round(Sending(), clients)
    without = one_round(Sending(), {"a": [1, 2], "b": [3, 6]})
    assert np.array_equal(done.run.state, without.run.state)
    assert done.rejected == ("bad",)
    assert done.report.clients == 2
    assert done.states["bad"].algorithm == 0, "it keeps the state that it had"
    assert done.states["a"].algorithm == 1


def test_a_round_of_only_bad_contributions_changes_nothing():
    done = one_round(Sending(), {"bad": [np.nan, 1]})
    assert done.run.state.tolist() == [0, 0]
    assert done.run.round == 1
    assert not done.report.released


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "aggregation",
    [
        shoal.Collect() >> shoal.Median(),
        shoal.Clip(10.0) >> shoal.Quantize(0.1) >> shoal.SecureSum(2) >> shoal.Mean(),
        shoal.Remember(shoal.TopK(0.5)) >> shoal.PlainSum() >> shoal.Mean(),
        shoal.Clip(10.0) >> shoal.Weigh(5) >> shoal.PlainSum() >> shoal.Mean(),
    ],
    ids=str,
)
def test_bad_contributions_leave_no_trace_in_any_chain(aggregation, bad):
    algorithm = Sending(aggregation)
    good = {"a": [1, 2], "b": [3, 6], "c": [5, 5]}
    done = one_round(algorithm, {**good, "bad": [bad, 1]})
    assert np.array_equal(done.run.state, one_round(algorithm, good).run.state)
    assert np.isfinite(done.run.state).all()


def test_a_round_without_clients_is_counted_and_changes_nothing():
    for aggregation in (shoal.mean(), shoal.Collect() >> shoal.Median()):
        done = one_round(Sending(aggregation), {})
        assert done.run.round == 1
        assert not done.report.released
        assert done.run.state.tolist() == [0, 0]


def test_noise_is_released_even_when_nobody_came():
    done = one_round(Sending(shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(1.0, clients=4)), {})
    assert done.report.released
    assert np.all(done.run.state != 0)


def test_a_round_that_is_not_released_leaves_clients_the_states_they_had():
    chain = shoal.Clip(10.0) >> shoal.Quantize(0.1) >> shoal.SecureSum(3) >> shoal.Mean()
    assert one_round(Sending(chain), {"a": [1, 2], "b": [3, 6]}).states["a"].algorithm == 0
    assert one_round(Sending(chain), {"a": [1, 2], "b": [3, 6], "c": [1, 1]}).states["a"].algorithm == 1


def test_a_metric_that_is_not_finite_rejects_the_contribution():
    @dataclass(frozen=True)
    class Measuring(Sending):
        def local(self, message, data, client_state, key):
            return Local(np.ones(2, np.float32), 1, client_state, {"loss": np.array([data, 1.0])})

    done = one_round(Measuring(), {"a": 1.0, "b": np.inf})
    assert done.rejected == ("b",)
    assert done.report.metrics["loss"].tolist() == [1, 1]
