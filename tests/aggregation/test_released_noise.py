"""What is released is the sum and noise of the distribution that each mechanism names: a million draws, chi-square."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shoal import Clip, DiscreteGaussian, Gaussian, NoiseShare, Over, PlainSum, Quantize, SecureSum, Skellam
from shoal.aggregation import Payload
from shoal.key import Key
from shoal.noise.source import SecureNoise
from shoal.vector import Layout, Part

DRAWS, UNLIKELY = 1_000_000, 1e-9  # secure noise is other noise in each run of the tests
STEP = 2.0**-4
PARTS = (Part("conv/w", (100, 2500)), Part("conv/b", (50_000,)), Part("dense", (700, 1000)))
SOURCES = {"simulated": lambda: Key.from_seed(7), "secure": SecureNoise}


def noise(chain, total, source, dtype="float32"):
    """What a sum comes back with, times its public divisor."""
    layout = Layout(PARTS, dtype)
    payload = Payload(total, np.zeros((), np.float32), {}, np.ones((), np.int32))
    released = chain.decode(payload, key=SOURCES[source](), layout=layout)
    assert released.value.dtype == layout.dtype
    return layout.unflatten(released.value.astype(np.float64) * chain.finish.clients), chain.sensitivity(layout)


def fits(values, cumulative, inner):
    """The p-value of how often values lie between the inner edges, beside a cumulative distribution."""
    edges = np.concatenate([[-np.inf], inner, [np.inf]])
    counts, _ = np.histogram(values, edges)
    return stats.chisquare(counts, len(values) * np.diff(cumulative(edges))).pvalue


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_tensor_gets_normal_noise_of_its_own(source, dtype):
    chain = Clip(3.0) >> PlainSum() >> Gaussian(1.5, clients=4)
    tensors, sensitivity = noise(chain, np.full(DRAWS, 2.0, dtype), source, dtype)
    assert sensitivity == 3.0
    for tensor in tensors.values():
        drawn = (tensor.ravel() - 2.0) / (1.5 * sensitivity)
        assert fits(drawn, stats.norm.cdf, stats.norm.ppf(np.linspace(0, 1, 501)[1:-1])) > UNLIKELY
        assert drawn.var() == pytest.approx(1, abs=5 * math.sqrt(2 / drawn.size))
    beside = [tensor.ravel()[:50_000] for tensor in tensors.values()]
    assert np.abs(np.corrcoef(beside) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("source", SOURCES)
def test_every_tensor_gets_discrete_gaussian_noise_on_the_grid(source):
    chain = Clip(1.0) >> Quantize(STEP) >> PlainSum() >> DiscreteGaussian(0.02, clients=4)
    tensors, sensitivity = noise(chain, np.full(DRAWS, 5, np.int32), source)
    deviation = 0.02 * sensitivity / STEP
    places = np.arange(-400, 401)
    density = np.exp(-(places**2) / (2 * deviation**2))
    below = np.cumsum(density / density.sum())
    inner = np.arange(-int(2.5 * deviation), int(2.5 * deviation)) + 0.5
    for tensor in tensors.values():
        drawn = tensor.ravel() / STEP - 5
        assert np.array_equal(drawn, np.rint(drawn))
        assert fits(drawn, lambda edges: np.interp(edges, places + 0.5, below, left=0, right=1), inner) > UNLIKELY


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("multiplier", [0.002, 0.02])
def test_every_tensor_gets_skellam_noise_on_the_grid(source, multiplier):
    chain = Clip(1.0) >> Quantize(STEP) >> PlainSum() >> Skellam(multiplier, clients=4)
    tensors, sensitivity = noise(chain, np.full(DRAWS, 5, np.int32), source)
    variance = (multiplier * sensitivity / STEP) ** 2
    reach = int(2.5 * math.sqrt(variance))
    inner = np.arange(-reach, reach) + 0.5
    for tensor in tensors.values():
        drawn = tensor.ravel() / STEP - 5
        assert np.array_equal(drawn, np.rint(drawn))
        assert fits(drawn, lambda edges: stats.skellam.cdf(edges, variance / 2, variance / 2), inner) > UNLIKELY


SHARED = Clip(1.0) >> Quantize(STEP) >> NoiseShare(0.5, at_least=7) >> SecureSum(threshold=7) >> Over(clients=10)


@pytest.mark.parametrize("dropped", [0, 1, 2, 3])
def test_shares_of_noise_are_whole_with_up_to_three_of_ten_clients_gone(dropped):
    """What is left has the variance of the plan or more, and is Skellam noise whoever is left."""
    layout, total = Layout((Part("w", (DRAWS // 10,)),)), None
    for place in range(dropped, 10):
        payload, _ = SHARED.encode(
            np.zeros(layout.size, np.float32), examples=1, notes={}, states=SHARED.start(layout),
            key=Key.from_seed(1).split(place), layout=layout,
        )  # fmt: skip
        total = payload if total is None else total + payload
    release = SHARED.decode(total, key=Key.from_seed(0), layout=layout)
    assert bool(release.released)
    drawn = np.asarray(release.value, np.float64) * 10 / STEP
    target = (0.5 * SHARED.sensitivity(layout) / STEP) ** 2
    whole = target * (10 - dropped) / 7
    assert drawn.var() == pytest.approx(whole, rel=5 * math.sqrt(2 / drawn.size))
    assert whole >= target
    inner = np.rint(stats.norm.ppf(np.linspace(0, 1, 101)[1:-1]) * math.sqrt(whole)) + 0.5
    assert fits(drawn, lambda edges: stats.skellam.cdf(edges, whole / 2, whole / 2), np.unique(inner)) > UNLIKELY


def test_with_fewer_shares_than_make_the_noise_whole_nothing_is_released():
    layout, total = Layout((Part("w", (4,)),)), None
    for place in range(6):
        payload, _ = SHARED.encode(
            np.zeros(4, np.float32), examples=1, notes={}, states=SHARED.start(layout),
            key=Key.from_seed(1).split(place), layout=layout,
        )  # fmt: skip
        total = payload if total is None else total + payload
    assert not SHARED.decode(total, key=Key.from_seed(0), layout=layout).released
