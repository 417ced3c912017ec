"""A shuffle that needs no memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shoal.key import Key
from shoal.permutation import shuffled

SHUFFLED = jax.jit(shuffled)


@given(count=st.integers(1, 300), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_every_place_is_taken_once(count, seed):
    places = SHUFFLED(jnp.arange(300), jnp.int32(count), Key(jnp.uint32(seed), jnp.uint32(7)))
    assert sorted(np.asarray(places)[:count].tolist()) == list(range(count))


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_every_place_and_every_pair_is_as_likely(count):
    draws = 50_000
    many = jax.jit(jax.vmap(lambda i: shuffled(jnp.arange(count), jnp.int32(count), Key.from_seed(9).split(i))))
    places = np.asarray(many(jnp.arange(draws)))
    table = np.stack([(places == value).sum(0) for value in range(count)])
    assert stats.chi2.sf(((table - draws / count) ** 2 / (draws / count)).sum(), (count - 1) ** 2) > 1e-4
    pairs = np.zeros((count, count))
    np.add.at(pairs, (places[:, 0], places[:, 1]), 1)
    expected = draws / (count * (count - 1))
    off = pairs[~np.eye(count, dtype=bool)]
    assert stats.chi2.sf(((off - expected) ** 2 / expected).sum(), len(off) - 1) > 1e-4


def test_another_key_gives_another_order():
    first, second = (shuffled(jnp.arange(50), jnp.int32(50), Key.from_seed(s)) for s in (0, 1))
    assert not np.array_equal(first, second)
