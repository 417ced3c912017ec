"""Noise in shares: what the sum of them is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.aggregation import Payload
from shoal.errors import OrderError, SettingError
from shoal.key import Key
from shoal.vector import Layout, Part

LAYOUT = Layout((Part("w", (2000,)),))
CHAIN = (
    shoal.Clip(1.0)
    >> shoal.Quantize(0.01)
    >> shoal.NoiseShare(2.0, at_least=20)
    >> shoal.SecureSum(threshold=20)
    >> shoal.Over(20)
)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("clients", [20, 30])
def test_the_shares_of_enough_clients_have_at_least_the_whole_variance(xp, clients):
    def encode(key):
        payload, _ = CHAIN.encode(
            xp.zeros(LAYOUT.size, "float32"), examples=1, notes={}, states=CHAIN.start(LAYOUT), key=key, layout=LAYOUT
        )
        return payload

    encode = jax.jit(encode) if xp is jnp else encode
    total = None
    for place in range(clients):
        key = Key.from_seed(0).split(place)
        payload = encode(key.traceable() if xp is jnp else key)
        total = payload if total is None else total + payload
    assert total.value.dtype == np.int32
    released = CHAIN.decode(total, key=Key.from_seed(1), layout=LAYOUT)
    wanted = 2.0 * CHAIN.sensitivity(LAYOUT) * np.sqrt(clients / 20) / 20
    assert np.asarray(released.value).std() == pytest.approx(wanted, rel=0.06)
    assert bool(released.released)


@pytest.mark.parametrize("variance", [0.5, 30.0, 1e6, 1.1e6, 1e8, 1e13])
def test_skellam_noise_has_the_moments_it_should_at_every_size(variance):
    draws = np.asarray(Key.from_seed(3).skellam(variance, np.zeros(100_000)), np.float64)
    assert draws.mean() == pytest.approx(0, abs=5 * np.sqrt(variance / 1e5))
    assert draws.var() == pytest.approx(variance, rel=0.03)
    kurtosis = np.mean((draws / draws.std()) ** 4) - 3
    assert kurtosis == pytest.approx(1 / variance, abs=0.1)  # a symmetric Skellam's


def test_noise_that_does_not_fit_into_the_sum_is_refused():
    chain = (
        shoal.Clip(1.0)
        >> shoal.Quantize(1e-5)
        >> shoal.NoiseShare(2e4, at_least=2)
        >> shoal.SecureSum(2)
        >> shoal.Over(4)
    )
    with pytest.raises(SettingError, match="needs more than 32 bits"):
        chain.check(LAYOUT, 4)


def test_a_sum_that_is_released_with_too_few_shares_of_noise_is_refused():
    shares = shoal.Clip(1.0) >> shoal.Quantize(0.01) >> shoal.NoiseShare(1.0, at_least=80)
    with pytest.raises(OrderError, match=r"write SecureSum\(threshold=80\)"):
        shares >> shoal.SecureSum(threshold=79) >> shoal.Over(100)
    assert shares >> shoal.SecureSum(threshold=81) >> shoal.Over(100)


def test_the_server_noise_is_the_same_numbers_as_numpy_and_as_jax():
    chain = shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(1.0, clients=3)
    released = [
        chain.decode(
            Payload(xp.zeros(LAYOUT.size, "float32"), xp.ones(()), {}, xp.ones((), "int32")),
            key=Key.from_seed(4), layout=LAYOUT,
        ).value
        for xp in (np, jnp)
    ]  # fmt: skip
    assert np.array_equal(*released)
    assert np.std(released[0]) == pytest.approx(1 / 3, rel=0.1)
