"""Randomness as a value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shoal.errors import SettingError
from shoal.key import Key, _threefry, name_words

split_in_a_call = jax.jit(lambda high, low, number: Key(high, low).split("round", number))
words = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("key", "block", "wanted"),
    [  # Random123's published vectors for threefry2x32 with 20 rounds
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_blocks_are_the_published_ones(key, block, wanted):
    assert _threefry(*key, *block) == wanted


@given(high=words, low=words, number=st.integers(0, 2**31 - 1))
def test_a_split_by_number_is_jax_fold_in(high, low, number):
    key = Key(high, low)
    theirs = jax.random.key_data(jax.random.fold_in(key.jax(), number))
    assert key.split(number) == Key(int(theirs[0]), int(theirs[1]))


@given(high=words, low=words, number=words)
def test_traced_and_plain_keys_are_the_same_number(high, low, number):
    plain = Key(high, low).split("round", number)
    traced = split_in_a_call(*(np.uint32(word) for word in (high, low, number)))
    assert (int(traced.high), int(traced.low)) == (plain.high, plain.low)


def test_an_array_of_keys_is_the_keys_one_by_one():
    names = [name_words(name) for name in ("a", "b", "c")]
    high, low = (np.array(column, np.uint32) for column in zip(*names, strict=True))
    together = Key.from_seed(3).fold(high, low)
    for place, name in enumerate("abc"):
        assert Key.from_seed(3).split(name) == Key(int(together.high[place]), int(together.low[place]))


def test_names_and_numbers_do_not_meet():
    keys = {Key.from_seed(0).split(name) for name in (*range(1000), *map(str, range(1000)))}
    assert len(keys) == 2000


def test_a_key_gives_the_same_draws_each_time_and_another_key_others():
    key = Key.from_seed(1)
    assert np.array_equal(key.generator().random(5), key.generator().random(5))
    assert not np.array_equal(key.generator().random(5), key.split(0).generator().random(5))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_its_range_is_refused(seed):
    with pytest.raises(SettingError, match="a seed is a whole number"):
        Key.from_seed(seed)


def test_a_number_that_does_not_fit_a_word_is_refused():
    with pytest.raises(SettingError, match="from 0 to"):
        Key.from_seed(0).split(-1)


def test_laplace_numbers_of_a_key_are_those_of_the_distribution_wherever_they_are_drawn():
    key, like = Key.from_seed(2), np.zeros(1_000_000, np.float32)
    drawn = key.laplace(like)
    counts, _ = np.histogram(drawn, stats.laplace.ppf(np.linspace(0, 1, 501)))
    assert stats.chisquare(counts).pvalue > 1e-4
    assert drawn.dtype == np.float32
    traced = jax.jit(lambda key: key.laplace(jnp.asarray(like)))(key.traceable())
    np.testing.assert_allclose(traced, drawn, rtol=1e-5)


def test_coins_of_a_key_are_true_as_often_as_asked_for_wherever_they_are_drawn():
    like = np.zeros(100_000, np.float32)
    for parts in (0, 3 << 26, 1 << 31):
        drawn = Key.from_seed(3).coins(parts, like)
        assert drawn.mean() == pytest.approx(parts / 2**32, abs=0.008)
        traced = jax.jit(lambda key, parts=parts: key.coins(parts, jnp.asarray(like)))(Key.from_seed(3).traceable())
        assert np.array_equal(drawn, traced)


@pytest.mark.parametrize("draw", [Key.uniform, Key.normal, Key.laplace])
def test_a_program_that_uses_float64_in_jax_draws_the_same_numbers(draw):
    key, like = Key.from_seed(2), np.zeros(100, np.float32)
    before = draw(key, like)
    with jax.enable_x64(True):
        assert draw(key, like).dtype == np.float32
        assert np.array_equal(draw(key, like), before)
