"""What algorithms send comes back to the bit, and a contribution that no honest client makes is refused in words."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

import shoal
from shoal import FedAvg, FedEval, models
from shoal.aggregation import Bag, Payload
from shoal.algorithms import client_turn, enter, open_round, start
from shoal.analytics import MeanAndVariance
from shoal.errors import WireError
from shoal.key import Key
from shoal.models import SklearnModel
from shoal.wire import payloads
from shoal.wire.payloads import (
    PayloadCheck,
    arrays_of,
    call_of,
    check_payload,
    pack_payload,
    pack_tree,
    payload_schema,
    unpack_payload,
    unpack_tree,
)
from shoal.wire.tensors import pack
from tests.conftest import classification

GRID = shoal.Clip(2.0) >> shoal.Quantize(0.01) >> shoal.PlainSum() >> shoal.Mean()
ALGORITHMS = {
    "weighted mean": FedAvg(models.logistic(4)),
    "clipped": FedAvg(models.logistic(4), aggregation=shoal.Clip(0.5) >> shoal.PlainSum() >> shoal.Mean()),
    "rounded": FedAvg(
        models.logistic(4), aggregation=shoal.Clip(0.5) >> shoal.Round(1) >> shoal.PlainSum() >> shoal.Mean()
    ),
    "grid": FedAvg(models.logistic(4), aggregation=GRID),
    "stochastic grid": FedAvg(
        models.logistic(4),
        aggregation=shoal.Clip(0.1) >> shoal.Quantize(0.05, "stochastic") >> shoal.PlainSum() >> shoal.Mean(),
    ),
    "weighed grid": FedAvg(
        models.logistic(4),
        aggregation=shoal.Clip(2.0) >> shoal.Weigh(10) >> shoal.Quantize(0.01) >> shoal.PlainSum() >> shoal.Mean(),
    ),
    "median": FedAvg(models.logistic(4), aggregation=shoal.Collect() >> shoal.Median()),
    "server optimizer": FedAvg(models.logistic(4), server_optimizer=shoal.adam(0.1)),
    "sparse with memory": FedAvg(
        models.logistic(4), aggregation=shoal.Remember(shoal.TopK(0.5)) >> shoal.PlainSum() >> shoal.Mean()
    ),
    "scikit-learn": FedAvg(SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))),
    "counts": FedAvg(SklearnModel(GaussianNB(), features=4, classes=(0, 1))),
    "statistics": MeanAndVariance((4,)),
    "evaluation": FedEval(models.logistic(4)),
}  # fmt: skip
every = pytest.mark.parametrize("name", ALGORITHMS)


@cache
def turns(name):
    """What each of two clients sends in the first round."""
    algorithm = ALGORITHMS[name]
    call = open_round(algorithm, start(algorithm, Key.from_seed(0)))
    population = classification(sizes=(7, 3))
    turns_ = (
        client_turn(algorithm, call, population[name], enter(algorithm), Key.from_seed(0)) for name in ("c0", "c1")
    )
    return [jax.tree.map(np.asarray, payload) for payload, _ in turns_]


def same(one, other):
    ones, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    return all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(ones, others, strict=True)
    )


@every
def test_what_honest_clients_send_passes_and_comes_back_to_the_bit(name):
    algorithm = ALGORITHMS[name]
    schema = payload_schema(algorithm)
    for payload in turns(name):
        data = pack_payload(payload)
        assert len(data) <= schema.most_bytes
        assert same(unpack_payload(data, schema), payload)
        check_payload(data, algorithm)
        check = PayloadCheck(algorithm, schema)
        for start_ in range(0, len(data), 7):
            check.feed(data[start_ : start_ + 7])
        check.finish()
        assert check.clients == 1


@every
def test_a_client_without_usable_data_sends_zeros_and_they_pass(name):
    algorithm = ALGORITHMS[name]
    payload = jax.tree.map(np.zeros_like, turns(name)[0])
    check = PayloadCheck(algorithm, payload_schema(algorithm))
    check.feed(pack_payload(payload))
    check.finish()
    assert check.clients == 0


def test_a_payload_is_a_bag_where_payloads_are_kept_apart():
    kinds = {
        name: type(unpack_payload(pack_payload(turns(name)[0]), payload_schema(a))) for name, a in ALGORITHMS.items()
    }
    assert {name for name, kind in kinds.items() if kind is Bag} == {"median"}
    assert set(kinds.values()) == {Bag, Payload}


@pytest.mark.parametrize("name", ["weighted mean", "clipped", "grid", "median", "weighed grid"])
def test_the_schema_of_a_large_vector_is_found_without_one(name, monkeypatch):
    algorithm = replace(ALGORITHMS[name], model=models.logistic(2000))
    whole = payload_schema(algorithm)
    monkeypatch.setattr(payloads, "_LARGE", 1000)
    assert payload_schema(algorithm) == whole
    assert whole.entries[0].size == 2001


def test_the_schema_of_a_chain_that_adds_a_number_has_it(monkeypatch):
    algorithm = FedAvg(models.logistic(2000), aggregation=shoal.AdaptiveClip(1.0) >> shoal.PlainSum() >> shoal.Mean())
    whole = payload_schema(algorithm)
    monkeypatch.setattr(payloads, "_LARGE", 1000)
    assert payload_schema(algorithm) == whole
    assert whole.entries[0].size == 2002


ONE = np.float32(1)


def payload(value=(0.1, 0, 0, 0, 0), *, dtype=np.float32, weight=ONE, clients=1, **notes):
    notes = {name: np.asarray(note, np.float32) for name, note in notes.items()}
    return Payload(np.asarray(value, dtype), weight, notes, np.int32(clients))


INTEGER = {"dtype": np.int32, "weight": np.int32(1)}
REFUSED = {
    "NaN": ("weighted mean", payload([0, 0, math.nan, 0, 0]), "'value' holds numbers that are not finite"),
    "infinity": ("weighted mean", payload([0, 0, -math.inf, 0, 0]), "'value' holds numbers that are not finite"),
    "NaN in a note": ("weighted mean", payload(loss=[math.nan, 1]), "'notes.loss' holds numbers that are not"),
    "NaN as weight": ("weighted mean", payload(weight=np.float32(math.nan)), "'weight' holds numbers that are not"),
    "a negative weight": ("weighted mean", payload(weight=np.float32(-1)), "from 0 to 1.67772e\\+07 here"),
    "a weight over the cap": ("weighted mean", payload(weight=np.float32(2**24 + 100)), "from 0 to"),
    "a weight where all count alike": ("clipped", payload(weight=np.float32(2)), "from 0 to 1 here"),
    "two clients": ("weighted mean", payload(clients=2), "counts for one client"),
    "minus one client": ("weighted mean", payload(clients=-1), "counts for one client"),
    "something from nobody": ("weighted mean", payload(clients=0), "counts for no client"),
    "a weight from nobody": ("weighted mean", payload([0] * 5, clients=0), "counts for no client"),
    "a note from nobody": (
        "weighted mean", payload([0] * 5, weight=np.float32(0), clients=0, loss=[0, 1e-45]), "counts for no client"
    ),
    "a value over the norm": ("clipped", payload([0.4, 0.4, 0, 0, 0]), "the value is longer than the 0.5"),
    "a value far over the norm": ("clipped", payload([3e38, 3e38, 0, 0, 0]), "the value is longer than the 0.5"),
    "integers over the norm": ("grid", payload([150, 150, 0, 0, 0], **INTEGER), "the value is longer than the 201"),
    "the smallest integer": ("grid", payload([-(2**31), 0, 0, 0, 0], **INTEGER), "the value is longer than the 201"),
    "floats for integers": ("grid", payload(), "'value' is float32"),
    "another size": ("weighted mean", payload([0] * 6), "'value' is float32\\[6\\]"),
    "another dtype": ("weighted mean", payload(dtype=np.float64), "'value' is float64"),
    "no bag": ("median", payload(), "'value' is float32\\[5\\], and float32\\[1, 5\\] was asked for"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_contribution_is_refused_for(name):
    algorithm, wrong, says = REFUSED[name]
    with pytest.raises(WireError, match=says):
        check_payload(pack_payload(wrong), ALGORITHMS[algorithm])


@given(st.floats(0.01, 100), st.integers(1, 9000))
def test_a_value_passes_up_to_the_norm_and_not_beyond(norm, size):
    model = models.logistic(size)
    algorithm = FedAvg(model, aggregation=shoal.Clip(norm) >> shoal.PlainSum() >> shoal.Mean())
    direction = np.random.default_rng(size).normal(size=size + 1)
    unit = direction / np.linalg.norm(direction)
    check_payload(pack_payload(payload(unit * norm)), algorithm)
    with pytest.raises(WireError, match="longer"):
        check_payload(pack_payload(payload(unit * norm * 1.0001)), algorithm)


CHAINS = [
    shoal.Clip(0.3) >> shoal.PlainSum() >> shoal.Mean(),
    shoal.Clip(1e-6) >> shoal.Weigh(7.5) >> shoal.PlainSum() >> shoal.Mean(),
    shoal.Clip(1e4) >> shoal.Round(0) >> shoal.PlainSum() >> shoal.Mean(),
    shoal.TopK(0.3) >> shoal.Clip(2.0) >> shoal.Quantize(0.3) >> shoal.PlainSum() >> shoal.Mean(),
    shoal.Clip(2.0) >> shoal.Weigh(11.5) >> shoal.Quantize(3.0, "stochastic") >> shoal.PlainSum() >> shoal.Mean(),
    shoal.Remember(shoal.Round(1)) >> shoal.Clip(1.0) >> shoal.Collect() >> shoal.Median(),
]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@given(data=st.data())
def test_whatever_a_chain_lets_out_passes(chain, data):
    size = data.draw(st.integers(1, 40))
    scale = 10.0 ** data.draw(st.integers(-10, 10))
    seed, examples = data.draw(st.integers(0, 100)), data.draw(st.integers(1, 50))
    algorithm = FedAvg(models.logistic(size), aggregation=chain)
    value = (np.random.default_rng(seed).normal(size=size + 1) * scale).astype(np.float32)
    sent, _ = chain.encode(
        value, examples=examples, notes={}, states=chain.start(algorithm.layout), key=Key.from_seed(seed),
        layout=algorithm.layout,
    )  # fmt: skip
    check_payload(pack_payload(sent), algorithm)


@given(st.lists(st.floats(width=32), min_size=5, max_size=5))
def test_only_finite_values_pass(value):
    data = pack_payload(payload(value))
    if np.isfinite(value).all():
        check_payload(data, ALGORITHMS["weighted mean"])
    else:
        with pytest.raises(WireError, match="not finite"):
            check_payload(data, ALGORITHMS["weighted mean"])


@pytest.mark.parametrize("place", [0, 4095, 4096, 99_999])
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(place):
    algorithm = FedAvg(models.logistic(99_999))
    value = np.ones(100_000, np.float32)
    value[place] = math.nan
    with pytest.raises(WireError, match="not finite"):
        check_payload(pack_payload(payload(value)), algorithm)


def test_tiny_numbers_have_a_norm_too():
    algorithm = FedAvg(models.logistic(4), aggregation=shoal.Clip(1e-25) >> shoal.PlainSum() >> shoal.Mean())
    check_payload(pack_payload(payload([1e-26, 0, 0, 0, 0])), algorithm)
    with pytest.raises(WireError, match="longer"):
        check_payload(pack_payload(payload([1e-24, 0, 0, 0, 0])), algorithm)


@given(st.data())
def test_a_damaged_contribution_is_a_wire_error_or_still_one_that_an_honest_client_could_send(data):
    algorithm = ALGORITHMS["clipped"]
    whole = bytearray(pack_payload(payload([0.1, -0.2, 0.3, 0, 0], loss=[2, 3])))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        check_payload(bytes(whole), algorithm)
    except WireError:
        return
    back = unpack_payload(bytes(whole), payload_schema(algorithm))
    assert np.linalg.norm(back.value) <= 0.5 * 1.0001
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(back))


@given(st.binary(max_size=300))
def test_any_bytes_are_no_contribution(data):
    with pytest.raises(WireError):
        check_payload(data, ALGORITHMS["clipped"])


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        ({f"n{i}": [1.0] for i in range(65)}, "65 notes .*, and at most 64 travel"),
        ({"long": [0.0] * 1025}, "notes.long has shape \\(1025,\\)"),
        ({"square": [[1.0]]}, "notes.square has shape \\(1, 1\\)"),
    ],
)
def test_notes_that_do_not_travel_are_said_before_anything_is_sent(notes, says):
    with pytest.raises(WireError, match=says):
        arrays_of(payload(**notes))


@every
def test_what_clients_are_sent_comes_back_to_the_bit(name):
    algorithm = ALGORITHMS[name]
    call = jax.tree.map(np.asarray, open_round(algorithm, start(algorithm, Key.from_seed(7))))
    back = call_of(algorithm, pack_tree(call))
    assert same(back, call)
    assert back.aggregation == algorithm.aggregation


def test_a_large_model_is_traced_and_not_made_to_read_what_clients_are_sent(monkeypatch):
    algorithm = FedAvg(models.mlp(30, hidden=(40,)))
    call = jax.tree.map(np.asarray, open_round(algorithm, start(algorithm, Key.from_seed(1))))
    monkeypatch.setattr(payloads, "_LARGE", 10)
    payloads._call_shapes.cache_clear()
    assert same(call_of(algorithm, pack_tree(call)), call)


@every
def test_a_run_comes_back_to_the_bit(name):
    algorithm = ALGORITHMS[name]
    run = jax.tree.map(np.asarray, start(algorithm, Key.from_seed(3)))
    assert same(unpack_tree(pack_tree(run), start(algorithm, Key.from_seed(0))), run)


def test_a_tree_of_another_algorithm_is_refused():
    one, other = (
        open_round(a, start(a, Key.from_seed(0))) for a in (FedAvg(models.logistic(4)), FedAvg(models.logistic(5)))
    )
    with pytest.raises(WireError, match="'0' is float32"):
        unpack_tree(pack_tree(one), other)
    with pytest.raises(WireError, match="lacks '1'"):
        unpack_tree(pack_tree({"a": np.zeros(1)}), {"a": np.zeros(1), "b": np.zeros(1)})
    with pytest.raises(WireError, match="'0' is float64"):
        unpack_tree(pack_tree([np.zeros(1)]), [np.zeros(1, np.float32)])


@given(st.binary(max_size=200))
def test_any_bytes_are_no_call(data):
    with pytest.raises(WireError):
        call_of(ALGORITHMS["weighted mean"], data)
    with pytest.raises(WireError):
        call_of(ALGORITHMS["weighted mean"], pack({"0": np.zeros(5, np.float32)}) + data)
