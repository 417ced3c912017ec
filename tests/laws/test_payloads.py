"""The laws of addition: payloads and bags add in any grouping, and on a grid in any order, to the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.aggregation import Bag, Payload


def payload(values, weight=1, loss=0.0):
    return Payload(
        np.array(values), np.float32(weight), {"loss": np.array([loss, 1], np.float32)}, np.array(1, np.int32)
    )


integers = st.lists(st.integers(-1000, 1000), min_size=3, max_size=3).map(lambda v: payload(np.array(v, np.int32)))


@given(payloads=st.lists(integers, min_size=2, max_size=8), seed=st.integers(0, 10))
def test_a_grid_sum_is_the_same_in_any_order_and_grouping(payloads, seed):
    wanted = np.sum([p.value for p in payloads], axis=0)
    order = np.random.default_rng(seed).permutation(len(payloads))
    shuffled = [payloads[i] for i in order]
    cut = len(shuffled) // 2
    left, right = _add(shuffled[:cut]), _add(shuffled[cut:])
    for total in (_add(payloads), _add(shuffled), left + right if left else right):
        assert np.array_equal(total.value, wanted)
        assert total.clients == len(payloads)


def _add(payloads):
    total = None
    for each in payloads:
        total = each if total is None else total + each
    return total


def test_notes_and_weights_are_added():
    total = payload([1.0], weight=2, loss=0.5) + payload([2.0], weight=3, loss=0.25)
    assert total.weight == 5
    assert total.notes["loss"].tolist() == [0.75, 2]


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_bag_keeps_payloads_apart_and_in_order(counts):
    payloads = [payload([float(i), -float(i)]) for i in range(sum(counts))]
    bag = _add([Bag.of(p) for p in payloads])
    assert bag.value.tolist() == [p.value.tolist() for p in payloads]
    assert bag.clients.tolist() == [1] * len(payloads)
    assert bag.notes["loss"][1] == len(payloads)


@pytest.mark.parametrize("kind", [Payload, Bag])
def test_what_leaves_a_client_has_no_further_field(kind):
    assert set(kind.__dataclass_fields__) == {"value", "weight", "notes", "clients"}
