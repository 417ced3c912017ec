"""Clipping by groups of arrays, beside NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.aggregation import Aggregation, Mean, PlainSum
from shoal.errors import SettingError
from shoal.key import Key
from shoal.vector import Layout, Part
from shoal.wire.plans import plan_bytes, rebuilt

LAYOUT = Layout((Part("conv/w", (2, 3)), Part("dense/w", (5,)), Part("conv/b", (1,)), Part("norm", (2,))))
GROUPED = shoal.Clip(3.0, groups=("conv", "dense"))


def clipped(chain: Aggregation, value):
    sent, _ = chain.encode(value, examples=1, notes={}, states=chain.start(LAYOUT), key=Key.from_seed(0), layout=LAYOUT)
    return LAYOUT.unflatten(np.asarray(sent.value))


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_every_group_has_its_share_of_the_norm(xp, scale, random):
    value = (random.normal(size=LAYOUT.size) * scale).astype(np.float32)
    before, value_before = LAYOUT.unflatten(value), value.copy()
    found = clipped(GROUPED >> PlainSum() >> Mean(), xp.asarray(value))
    for names in (("conv/w", "conv/b"), ("dense/w",), ("norm",)):
        length = np.sqrt(sum(np.sum(before[name].astype(float) ** 2) for name in names))
        for name in names:
            wanted = before[name] * min(1, 3 / np.sqrt(3) / length)
            np.testing.assert_allclose(found[name], wanted, rtol=1e-5)
    assert np.array_equal(value, value_before)


def test_groups_that_hold_every_array_leave_no_group_of_others(random):
    value = (random.normal(size=LAYOUT.size) * 100).astype(np.float32)
    found = clipped(shoal.Clip(1.0, groups=("conv", "")) >> PlainSum() >> Mean(), value)
    assert np.sqrt(np.sum(found["conv/w"] ** 2) + np.sum(found["conv/b"] ** 2)) == pytest.approx(np.sqrt(0.5), rel=1e-5)
    assert np.sqrt(sum(np.sum(array**2) for array in found.values())) == pytest.approx(1, rel=1e-5)


def test_one_number_that_is_not_finite_makes_every_group_zeros():
    value = np.ones(LAYOUT.size, np.float32)
    value[3] = np.nan
    assert not any(array.any() for array in clipped(GROUPED >> PlainSum() >> Mean(), value).values())


def test_a_group_without_an_array_is_refused_before_anything_runs():
    chain = shoal.Clip(1.0, groups=("conv", "convolution")) >> PlainSum() >> shoal.Gaussian(1.0, clients=3)
    with pytest.raises(SettingError, match="'convolution': the arrays are conv/w, dense/w, conv/b, norm"):
        chain.sensitivity(LAYOUT)


@pytest.mark.parametrize("groups", ["conv", 3, ("conv", 3)])
def test_groups_are_a_tuple_of_texts(groups):
    with pytest.raises(SettingError, match="groups are a tuple of texts"):
        shoal.Clip(1.0, groups=groups)


def test_groups_travel_with_the_plan():
    chain = shoal.Clip(1.0, groups=("weights",)) >> PlainSum() >> Mean()
    plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), aggregation=chain), rounds=1)
    assert rebuilt(plan_bytes(plan)) == plan
    flat = shoal.FedAvg(shoal.models.logistic(3), aggregation=shoal.Clip(1.0) >> PlainSum() >> Mean())
    assert shoal.Plan(flat, rounds=1).digest() != plan.digest()
