"""Integer noise on the grid of a sum: how much, and that nothing but the divisor follows it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import shoal
from shoal.aggregation import Payload
from shoal.errors import OrderError, SettingError
from shoal.key import Key
from shoal.noise.source import SecureNoise
from shoal.vector import Layout, Part

STEP = 2.0**-4
LAYOUT = Layout((Part("w", (100_000,)),))
CHAIN = shoal.Clip(1.0) >> shoal.Quantize(STEP) >> shoal.PlainSum() >> shoal.DiscreteGaussian(1.0, clients=4)


def integers(xp, value):
    return Payload(xp.full(LAYOUT.size, value, "int32"), xp.zeros(()), {}, xp.ones((), "int32"))


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_the_sum_gets_discrete_gaussian_noise_of_the_sensitivity_on_the_grid(xp):
    decode = lambda total, key: CHAIN.decode(total, key=key, layout=LAYOUT).value  # noqa: E731
    decode = jax.jit(decode) if xp is jnp else decode
    key = Key.from_seed(0)
    value = np.asarray(decode(integers(xp, 7), key.traceable() if xp is jnp else key))
    noise = value * 4 / STEP - 7
    assert np.array_equal(noise, np.round(noise))
    deviation = CHAIN.sensitivity(LAYOUT) / STEP
    places = np.arange(-20 * math.ceil(deviation), 20 * math.ceil(deviation) + 1.0)
    density = np.exp(-(places**2) / (2 * deviation**2))
    density /= density.sum()
    cells = np.array_split(np.arange(len(places)), np.searchsorted(np.cumsum(density), np.linspace(0, 1, 101)[1:-1]))
    expected = np.array([density[cell].sum() for cell in cells]) * LAYOUT.size
    counts = np.bincount(noise.astype(int) + len(places) // 2, minlength=len(places))
    assert stats.chisquare([counts[cell].sum() for cell in cells], expected).pvalue > 1e-4
    assert noise.var() == pytest.approx(deviation**2, rel=0.03)


@pytest.mark.parametrize("deviation", [0.4, 5.0, 300.0, 2000.0])
def test_simulated_noise_is_the_same_numbers_as_numpy_as_jax_and_traced(deviation):
    key, like = Key.from_seed(5), np.zeros(50_000, np.int32)
    drawn = key.discrete_gaussian(deviation, like)
    assert drawn.dtype == np.int32
    assert np.array_equal(drawn, key.discrete_gaussian(deviation, jnp.asarray(like)))
    traced = jax.jit(lambda key: key.discrete_gaussian(deviation, jnp.asarray(like)))(key.traceable())
    assert np.abs(drawn - traced).max() <= (deviation > 1024)  # normal numbers that XLA rounds in another order
    places = np.arange(-50.0, 51) if deviation < 1 else np.zeros(1)
    density = np.exp(-(places**2) / (2 * deviation**2))
    wanted = np.sum(density * places**2) / density.sum() if deviation < 1 else deviation**2
    assert drawn.var() == pytest.approx(wanted, rel=0.04)


def test_a_round_without_a_client_releases_noise():
    silence = Payload(np.zeros(LAYOUT.size, np.int32), np.zeros(()), {}, np.zeros((), np.int32))
    release = CHAIN.decode(silence, key=Key.from_seed(0), layout=LAYOUT)
    assert bool(release.released)
    assert np.std(release.value) > 0


def test_a_source_of_secure_noise_takes_the_place_of_a_key():
    released = [CHAIN.decode(integers(np, 7), key=SecureNoise(), layout=LAYOUT).value for _ in range(2)]
    assert not np.array_equal(*released)
    for value in released:
        assert np.std(value) == pytest.approx(CHAIN.sensitivity(LAYOUT) / 4, rel=0.03)


def test_integer_noise_needs_integers():
    with pytest.raises(OrderError, match=r"put Quantize\(step\) before it"):
        shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.DiscreteGaussian(1.0, clients=4)
    shares = shoal.Clip(1.0) >> shoal.Quantize(STEP) >> shoal.NoiseShare(1.0, at_least=2) >> shoal.SecureSum(2)
    with pytest.raises(OrderError, match="the noise is in the sum already"):
        shares >> shoal.DiscreteGaussian(1.0, clients=4)


@pytest.mark.parametrize("wrong", [{"multiplier": 0.0, "clients": 4}, {"multiplier": 1.0, "clients": 0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(SettingError):
        shoal.DiscreteGaussian(**wrong)


def test_noise_that_does_not_fit_beside_the_sum_is_refused():
    fine = shoal.Clip(1.0) >> shoal.Quantize(1e-7) >> shoal.PlainSum()
    layout = Layout((Part("w", (10,)),))
    (fine >> shoal.DiscreteGaussian(1.0, clients=4)).check(layout, 4)
    with pytest.raises(SettingError, match="needs more than 32 bits"):
        (fine >> shoal.DiscreteGaussian(30.0, clients=4)).check(layout, 4)


def test_a_simulated_run_moves_by_the_same_noise_in_every_runtime():
    chain = shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(2) >> shoal.DiscreteGaussian(50.0, clients=4)
    plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=chain), rounds=1)
    first = shoal.simulate(plan, shoal.hospitals(), seed=3)
    local = shoal.simulate(plan, shoal.hospitals(), seed=3, runtime="local")
    np.testing.assert_allclose(first.vector, local.vector, atol=4 * 1e-3)
    assert np.std(first.vector) == pytest.approx(50 / 4, rel=0.6)
