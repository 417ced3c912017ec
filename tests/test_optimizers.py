"""Optimizers and schedules as values."""

import jax
import numpy as np
import pytest

import shoal
from shoal.describe import digest
from shoal.errors import SettingError
from shoal.optimizers import Optimizer
from shoal.schedules import cosine, exponential, linear, piecewise


def step(optimizer, gradients, round=0):
    """What an optimizer makes of gradients, one after another, from zero."""
    weights = np.zeros(2, np.float32)
    transformation = optimizer.build(round)
    memory = transformation.init(weights)
    for gradient in gradients:
        change, memory = transformation.update(np.float32(gradient), memory, weights)
        weights = weights + np.asarray(change)
    return weights


def test_momentum_is_the_recursion_of_its_formula(random):
    gradients = random.normal(size=(5, 2))
    weights, momentum = np.zeros(2), np.zeros(2)
    for gradient in gradients:
        momentum = 0.9 * momentum + gradient
        weights = weights - 0.1 * momentum
    np.testing.assert_allclose(step(shoal.sgd(0.1, momentum=0.9), gradients), weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (cosine(0.2, rounds=40, final=0.02), lambda t: 0.02 + 0.18 * (1 + np.cos(np.pi * min(t, 40) / 40)) / 2),
        (linear(0.2, rounds=40, final=0.1), lambda t: 0.2 - 0.1 * min(t, 40) / 40),
        (exponential(0.2, decay=0.5, every=10), lambda t: 0.2 * 0.5 ** (t / 10)),
        (piecewise(0.2, factors={10: 0.1, 20: 0.5}), lambda t: 0.2 * (0.1 if t >= 10 else 1) * (0.5 if t >= 20 else 1)),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_schedules_follow_their_formulas_and_can_be_traced(schedule, formula):
    traced = jax.jit(schedule.at)
    for round in (0, 1, 9, 10, 11, 20, 39, 40, 55):
        assert float(schedule.at(round)) == pytest.approx(formula(round), rel=1e-5)
        assert float(traced(round)) == pytest.approx(formula(round), rel=1e-5)


def test_an_optimizer_takes_its_rate_of_the_round():
    falling = shoal.sgd(linear(1.0, rounds=10))
    np.testing.assert_allclose(step(falling, [[1, 1]], round=0), [-1, -1])
    np.testing.assert_allclose(step(falling, [[1, 1]], round=5), [-0.5, -0.5])


def test_optimizers_compare_hash_and_have_digests():
    assert shoal.adam(0.1) == shoal.adam(0.1) != shoal.adam(0.2)
    assert hash(shoal.adam(0.1)) == hash(shoal.adam(0.1))
    assert digest(shoal.adam(linear(0.1, rounds=3))) != digest(shoal.adam(linear(0.1, rounds=4)))


def test_any_optimizer_of_optax_has_a_name_here():
    assert isinstance(shoal.optimizer("lion", learning_rate=0.1), Optimizer)


def test_wrong_settings_are_refused():
    with pytest.raises(SettingError, match="no optimizer named nonsense"):
        shoal.optimizer("nonsense", learning_rate=0.1)
    with pytest.raises(SettingError, match="learning rate is over 0"):
        shoal.sgd(0.0)
    with pytest.raises(SettingError, match=r"optax\.sgd"):
        shoal.optimizer("sgd", learning_rate=0.1, warmth=3)
