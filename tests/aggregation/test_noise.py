"""Noise in shares: what the sum of them is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
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
        payload = encode(Key(np.uint32(key.high), np.uint32(key.low)) if xp is jnp else key)
        total = payload if total is None else total + payload
    assert total.value.dtype == np.int32
    released = CHAIN.decode(total, key=Key.from_seed(1), layout=LAYOUT)
    wanted = 2.0 * CHAIN.sensitivity(LAYOUT) * np.sqrt(clients / 20) / 20
    assert np.asarray(released.value).std() == pytest.approx(wanted, rel=0.06)
    assert bool(released.released)
