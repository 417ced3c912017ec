"""The laws of every step. A step gets them by being listed, and a test sees that every step is."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal import steps
from shoal.aggregation import Aggregation, Mean, PlainSum, Step, Update
from shoal.aggregation.step import Remembers
from shoal.key import Key
from shoal.vector import Layout, Part

SIZE = 12
LAYOUT = Layout((Part("conv/w", (2, 3)), Part("dense/w", (5,)), Part("conv/b", (1,))))
CHAINS = [
    shoal.Clip(1.0),
    shoal.Clip(1e-3),
    shoal.Clip(1.0, groups=("conv",)),
    shoal.Clip(1.0, groups=("conv/w", "dense")) >> shoal.Quantize(0.01),
    shoal.Weigh(10),
    shoal.Clip(1.0) >> shoal.Weigh(10),
    shoal.TopK(0.3),
    shoal.Clip(2.0) >> shoal.TopK(0.3),
    shoal.Round(2),
    shoal.Rotate(3),
    shoal.Clip(1.0) >> shoal.Rotate(),
    shoal.Clip(1.0) >> shoal.Round(2),
    shoal.Remember(shoal.TopK(0.3)),
    shoal.Remember(shoal.Round(1)) >> shoal.Clip(0.5),
    shoal.Clip(1.0) >> shoal.Quantize(0.05),
    shoal.Clip(1.0) >> shoal.Quantize(0.05, "stochastic"),
    shoal.Clip(1.0) >> shoal.Weigh(7) >> shoal.Quantize(0.003),
    shoal.Clip(1.0) >> shoal.Rotate() >> shoal.Quantize(0.003),
]
# Some add to the value on purpose, one changes its units: tests/aggregation/test_noise.py,
# tests/steps/test_adaptive.py, tests/steps/test_local.py.
APART = [shoal.NoiseShare, shoal.AdaptiveClip, shoal.LocalGaussian, shoal.LocalLaplace, shoal.RandomizedResponse]
# A vector is one draw, of its bits: a draw for each number takes ten times as long.
bits = st.binary(min_size=4 * SIZE, max_size=4 * SIZE).map(lambda drawn: np.frombuffer(drawn, np.uint32).copy())
poisoned = bits.map(lambda words: words.view(np.float32))
vectors = bits.map(lambda words: within(words, 1e6))
gentle = bits.map(lambda words: within(words, 10.0))


def within(words, most):
    """Numbers of both signs, of sizes from `most` * 2**-24 to `most`, and zeros: as floats are made of bits."""
    mantissa, exponent, sign = words & 0x7FFFFF, words >> 23 & 0xFF, words >> 31
    sizes = most * np.ldexp(0.5 + mantissa / 2**24, -(exponent % 24).astype(int))
    return (np.where(sign, -1, 1) * np.where(words << 1, sizes, 0)).astype(np.float32)


def aggregation(chain: object) -> Aggregation:
    return chain >> PlainSum() >> Mean()


def encode(aggregation: Aggregation, value, examples=5, seed=0, states=None):
    states = aggregation.start(LAYOUT) if states is None else states
    return aggregation.encode(
        value, examples=np.int32(examples), notes={}, states=states, key=Key.from_seed(seed), layout=LAYOUT
    )


def decode(aggregation: Aggregation, value):
    for step in reversed(aggregation.steps):
        value = step.decode(value)
    return value


def test_every_step_is_under_these_laws():
    every = {value for value in vars(steps).values() if inspect.isclass(value) and issubclass(value, Step)}
    listed = {type(step) for chain in CHAINS for step in aggregation(chain).steps}
    assert every == listed | set(APART)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@given(value=vectors, examples=st.integers(1, 1000), seed=st.integers(0, 5))
def test_no_client_exceeds_the_bound(chain, value, examples, seed):
    whole = aggregation(chain)
    sent, _ = encode(whole, value, examples, seed)
    length = np.linalg.norm(decode(whole, sent.value).astype(np.float64))
    assert length <= whole.sensitivity(LAYOUT)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@given(value=vectors)
def test_no_client_exceeds_the_bound_inside_a_compiled_call(chain, value):
    whole = aggregation(chain)
    sent, _ = compiled(chain)(jnp.asarray(value))
    length = np.linalg.norm(np.asarray(decode(whole, sent.value)).astype(np.float64))
    assert length <= whole.sensitivity(LAYOUT)


CLIPPED = [chain for chain in CHAINS if isinstance(chain.steps[0], shoal.Clip)]


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("chain", CLIPPED, ids=str)
@given(value=poisoned, place=st.integers(0, SIZE - 1))
def test_no_poisoned_client_exceeds_the_bound(chain, xp, value, place):
    whole = aggregation(chain)
    for poison in (value[place], np.nan, np.inf, -np.inf, 3e38):
        value[place] = poison
        sent = compiled(chain)(jnp.asarray(value))[0] if xp is jnp else encode(whole, value)[0]
        decoded = np.asarray(decode(whole, sent.value)).astype(np.float64)
        assert np.linalg.norm(decoded) <= whole.sensitivity(LAYOUT)


@pytest.mark.parametrize("chain", CLIPPED[1::4], ids=str)
def test_no_poisoned_client_exceeds_the_bound_beside_others_in_lanes(chain):
    """XLA divides several vectors at a time in another way than one, and by numbers over 2**126 to zero."""
    values = np.ones((7, SIZE), np.float32)
    values[:, 4] = np.nan, np.inf, 3e38, -(2.0**127), 2.0**126, 1e-40, 1.0
    sent, _ = jax.jit(jax.vmap(lambda value: encode(aggregation(chain), value)))(jnp.asarray(values))
    for value in np.asarray(sent.value):
        decoded = np.asarray(decode(aggregation(chain), value)).astype(np.float64)
        assert np.linalg.norm(decoded) <= aggregation(chain).sensitivity(LAYOUT)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_a_contribution_that_is_not_finite_is_clipped_to_zeros(xp):
    for poison in (np.nan, np.inf, -np.inf):
        value = xp.asarray(np.array([1.0, poison, 2.0], np.float32))
        assert not np.asarray(shoal.Clip(5.0).encode(_update(value), None, Key.from_seed(0))[0].value).any()


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@given(first=gentle, second=gentle)
def test_decoding_a_sum_is_the_sum_of_the_decoded(chain, first, second):
    whole = aggregation(chain)
    a, b = (encode(whole, value)[0] for value in (first, second))
    together = decode(whole, (a + b).value)
    apart = decode(whole, a.value) + decode(whole, b.value)
    slack = 1e-5 if "Rotate" in str(chain) else 1e-6  # a number that is turned rounds like the largest
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=slack)


@pytest.mark.parametrize("chain", CHAINS, ids=str)
@given(value=gentle)
def test_numpy_and_a_compiled_call_agree(chain, value):
    if "stochastic" in str(chain):
        return  # NumPy and JAX draw different numbers from one key
    whole = aggregation(chain)
    plain, memory = encode(whole, value)
    traced, traced_memory = compiled(chain)(jnp.asarray(value))
    unit = next((step.unit for step in whole.steps if isinstance(step, shoal.Quantize)), 0.0)
    slack = 1e-6 * (1 + np.abs(value).max()) + unit + (0.01 if "Round" in str(chain) else 0)
    np.testing.assert_allclose(decode(whole, plain.value), decode(whole, traced.value), rtol=1e-5, atol=slack)
    for mine, theirs in zip(jax.tree.leaves(memory), jax.tree.leaves(traced_memory), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=max(slack, 0.06))


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_zeros_stay_zeros_and_nothing_is_not_a_number(chain):
    whole = aggregation(chain)
    sent, _ = encode(whole, np.zeros(SIZE, np.float32))
    assert not decode(whole, sent.value).any()
    assert not np.asarray(decode(whole, compiled(chain)(jnp.zeros(SIZE))[0].value)).any()


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_a_chain_is_a_value(chain):
    assert chain == chain.__class__(**vars(chain)) if not hasattr(chain, "links") else chain == type(chain)(chain.links)
    assert hash(aggregation(chain)) == hash(aggregation(chain))


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_the_memory_of_a_client_keeps_its_shape(chain):
    whole = aggregation(chain)
    before = whole.start(LAYOUT)
    _, after = encode(whole, np.ones(SIZE, np.float32), states=before)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert any(isinstance(step, Remembers) for step in whole.steps) == bool(jax.tree.leaves(before))


_CALLS: dict[str, object] = {}


def compiled(chain):
    """The encoding of a chain as a compiled call, compiled once."""
    if str(chain) not in _CALLS:
        _CALLS[str(chain)] = jax.jit(lambda value: encode(aggregation(chain), value))
    return _CALLS[str(chain)]


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@given(value=bits.map(lambda words: (words % 4).astype(np.float32) - 1))
def test_top_k_sends_at_most_k_numbers_also_when_many_are_equal(xp, value):
    sent = np.asarray((_top_three if xp is np else TOP_THREE)(xp.asarray(value)))
    order = np.argsort(-np.abs(value), kind="stable")
    wanted = np.where(np.isin(np.arange(SIZE), order[:3]), value, 0)
    assert np.array_equal(sent, wanted)


def _top_three(value):
    return shoal.TopK(0.25).encode(_update(value), None, Key.from_seed(0))[0].value


TOP_THREE = jax.jit(_top_three)


def _update(value):
    return Update(value, 1, np.float32(1), {}, float("inf"))


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_numbers_whose_square_is_no_float32_are_clipped_and_rounded_all_the_same(xp):
    huge = xp.full(4, np.float32(1e20))
    clipped = shoal.Clip(1.0).encode(_update(huge), None, Key.from_seed(0))[0].value
    np.testing.assert_allclose(clipped, 0.5, rtol=1e-4)
    largest = xp.full(4, np.float32(1e33))
    assert np.array_equal(shoal.Round(7).encode(_update(largest), None, Key.from_seed(0))[0].value, largest)


def test_a_fraction_is_counted_as_written():
    assert [shoal.TopK(f).kept(100) for f in (0.29, 0.57, 0.001)] == [29, 57, 1]
