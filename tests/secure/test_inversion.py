"""What a server reads of a row of data: all of it from one plain update, none of it from a secure sum.

The gradient of a layer with a bias is an outer product: what stands in front of the weights of an output, divided by
what stands in front of its bias, is the row (Zhu, Liu and Han 2019; Geiping et al. 2020, proposition 3.1).
"""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import Clip, Mean, PlainSum, Quantize, SecureSum
from shoal.secure.rehearsal import rehearse

from .session import clients

GRID = 1e-6
MODEL = shoal.models.logistic(features=6, classes=3)
LAYOUT = shoal.FedAvg(MODEL).layout


NAMES = tuple("abcde")
ROWS = dict(zip(NAMES, np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32), strict=True))
HOSPITALS = shoal.Population.from_arrays(np.stack([*ROWS.values()]), np.array([0, 1, 2, 0, 1]), groups=NAMES)


def learned(sum_, population, **settings):
    """What one round has added to a model of zeros."""
    chain = Clip(10.0) >> Quantize(GRID) >> sum_ >> Mean()
    work = shoal.FedAvg(MODEL, steps=1, batch_size="all", client_optimizer=shoal.sgd(0.5), aggregation=chain)
    return shoal.simulate(shoal.Plan(work, rounds=1), population, runtime="local", **settings).vector


def read_back(update):
    """The row that each of the three outputs' gradients says."""
    parts = LAYOUT.unflatten(np.asarray(update, np.float64))
    return (parts["weight"] / parts["bias"]).T


@pytest.fixture(scope="module")
def updates():
    """Each client's update by itself, as a server without a secure sum sees it."""
    return {name: learned(PlainSum(), HOSPITALS.select([name])) for name in NAMES}


def test_one_update_in_the_plain_says_the_row_that_it_comes_from(updates):
    for name in NAMES:
        for found in read_back(updates[name]):
            np.testing.assert_allclose(found, ROWS[name], atol=2e-5)


def test_the_secure_sum_says_no_row_of_anybody():
    together = learned(SecureSum(threshold=3), HOSPITALS, secure="full")
    np.testing.assert_array_equal(together, learned(PlainSum(), HOSPITALS))  # the sum, and nothing is added to it
    for found in read_back(together):
        for name in NAMES:
            assert np.abs(found - ROWS[name]).max() > 1


def test_what_one_client_sends_under_its_masks_says_nothing_of_its_row(updates):
    terms = clients(5, size=LAYOUT.size, slots=1, threshold=3).terms
    integers = {name: np.rint(update / GRID).astype(np.int32).view("<u4") for name, update in updates.items()}
    sent = {}

    def network(message):
        if message.body is not None:
            sent[message.client] = np.frombuffer(bytes(message.body)[: 4 * LAYOUT.size], "<i4") * GRID
        return message

    one = np.ones(1, np.uint64)
    done = rehearse(terms, {n: (v, one) for n, v in integers.items()}, entropy=bytes(32), network=network)
    np.testing.assert_array_equal(done.sum.value, sum(integers.values()))
    for name in NAMES:
        assert np.abs(sent[name]).max() > 100 * np.abs(updates[name]).max()
        for found in read_back(sent[name]):
            assert np.abs(found - ROWS[name]).max() > 0.1
