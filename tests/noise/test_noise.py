"""Noise for real runs: that its distributions are the ones they are said to be, and that no draw comes twice."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy import stats

from shoal.errors import SettingError
from shoal.noise import tables
from shoal.noise.laplace import laplace
from shoal.noise.normal import normal
from shoal.noise.source import SecureNoise
from shoal.noise.words import PIECE, Words

DRAWS = 1_000_000
UNLIKELY = 1e-4


def words(number=1):
    return Words(number.to_bytes(32, "big"))


def exact(table):
    """The probabilities that a table's columns amount to, as Python integers of 2**64."""
    level = 1 << (64 - table.bits)
    parts = [0] * (1 << table.bits)
    for place, (own, other) in enumerate(zip(table.threshold.tolist(), table.other.tolist(), strict=True)):
        parts[place] += own
        parts[other] += level - own
    assert not any(parts[2 * table.reach + 1 :])
    return parts[: 2 * table.reach + 1]


def gaussian_pmf(deviation, places):
    weights = np.exp(-(np.arange(-40 * math.ceil(deviation), 40 * math.ceil(deviation) + 1) ** 2) / (2 * deviation**2))
    return np.exp(-(places**2) / (2 * deviation**2)) / weights.sum()


def fits(counts, expected):
    """The p-value of counts beside their expectations, rare places taken together."""
    common = expected >= 20
    counts = np.append(counts[common], DRAWS - counts[common].sum())
    expected = np.append(expected[common], DRAWS - expected[common].sum())
    if expected[-1] < 20:
        counts, expected = (np.append(a[:-2], a[-2] + a[-1]) for a in (counts, expected))
    return stats.chi2.sf(np.sum((counts - expected) ** 2 / expected), len(counts) - 1)


def test_words_are_the_key_stream_of_aes_256_in_counter_mode():
    key = bytes(range(32))
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * (3 * PIECE + 5)))
    taken = Words(key)
    parts = [taken.take(count) for count in (0, 7, 2 * PIECE + 1, PIECE - 3)]
    assert np.concatenate(parts).tobytes() == stream


def test_a_key_of_another_length_is_refused():
    with pytest.raises(SettingError, match="has 32 bytes, not 16"):
        Words(bytes(16))


def test_normal_numbers_are_normal():
    drawn = normal(words(), DRAWS)
    edges = stats.norm.ppf(np.linspace(0, 1, 1001))
    counts, _ = np.histogram(drawn, edges)
    assert stats.chisquare(counts).pvalue > UNLIKELY
    assert drawn.var() == pytest.approx(1, abs=5 * math.sqrt(2 / DRAWS))
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5e-3
    halves = np.concatenate([drawn[i : i + PIECE].reshape(2, -1) for i in range(0, DRAWS - PIECE, PIECE)], axis=1)
    assert abs(np.corrcoef(halves**2)[0, 1]) < 5e-3  # the two numbers of one pair


@pytest.mark.parametrize("count", [0, 1, 3, PIECE + 1])
def test_any_number_of_normal_numbers_can_be_drawn(count):
    assert normal(words(), count).shape == (count,)


def test_laplace_numbers_are_those_of_the_distribution():
    drawn = laplace(words(5), DRAWS)
    counts, _ = np.histogram(drawn, stats.laplace.ppf(np.linspace(0, 1, 1001)))
    assert stats.chisquare(counts).pvalue > UNLIKELY
    assert drawn.var() == pytest.approx(2, abs=5 * math.sqrt(20 / DRAWS))
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 5e-3


def test_secure_coins_are_true_as_often_as_asked_for():
    for parts in (0, 1 << 24, 1 << 31, 2**32 - 1):
        coins = SecureNoise().coins(parts, np.zeros((1000, 100)))
        assert coins.shape == (1000, 100) and coins.dtype == bool
        chance = parts / 2**32
        assert coins.mean() == pytest.approx(chance, abs=6 * math.sqrt(chance * (1 - chance) / coins.size) + 1e-9)


@pytest.mark.parametrize("deviation", [1e-3, 0.3, 1.0, 4.0, 64.5, 1024.0])
def test_a_table_is_the_discrete_gaussian_distribution(deviation):
    table = tables.discrete_gaussian(deviation)
    parts = exact(table)
    assert sum(parts) == 2**64
    assert parts == parts[::-1]
    wanted = gaussian_pmf(deviation, np.arange(-table.reach, table.reach + 1.0))
    np.testing.assert_allclose(np.array(parts, float) / 2**64, wanted, rtol=1e-11, atol=2.0**-63)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 4.0, 64.5])
def test_less_than_a_part_of_2_to_the_64_lies_beyond_a_table(deviation):
    with localcontext(prec=60):
        places = range(30 * math.ceil(deviation))
        weights = [(-(Decimal(k) ** 2) / (2 * Decimal(deviation) ** 2)).exp() for k in places]
        whole = 2 * sum(weights) - weights[0]
        reach = tables.discrete_gaussian(deviation).reach
        assert 2 * sum(weights[reach + 1 :]) / whole < Decimal(2) ** -64
        parts = exact(tables.discrete_gaussian(deviation))
        wrong = [abs(parts[reach + k] - 2**64 * weights[k] / whole) for k in range(reach + 1)]
        assert max(wrong) <= 1


@pytest.mark.parametrize("variance", [1e-6, 0.25, 9.0, 4000.0, 2.0**20])
def test_a_table_is_the_skellam_distribution(variance):
    table = tables.skellam(variance)
    parts = exact(table)
    assert sum(parts) == 2**64
    wanted = stats.skellam.pmf(np.arange(-table.reach, table.reach + 1), variance / 2, variance / 2)
    np.testing.assert_allclose(np.array(parts, float) / 2**64, wanted, rtol=1e-6, atol=2.0**-62)


@pytest.mark.parametrize("deviation", [0.5, 3.0, 64.5, 900.0])
def test_draws_of_a_table_have_its_distribution(deviation):
    table = tables.discrete_gaussian(deviation)
    drawn = table.draw(words(2), DRAWS)
    counts = np.bincount(drawn + table.reach, minlength=2 * table.reach + 1)
    expected = DRAWS * gaussian_pmf(deviation, np.arange(-table.reach, table.reach + 1.0))
    assert fits(counts, expected) > UNLIKELY
    variance = np.sum(expected * np.arange(-table.reach, table.reach + 1.0) ** 2) / DRAWS
    assert drawn.var() == pytest.approx(variance, rel=8 / math.sqrt(DRAWS) + 0.003 * (deviation < 1))


@pytest.mark.parametrize(("variance", "draws"), [(2.0, 1), (1e6, 1), (3e6, 3)])
def test_skellam_draws_have_their_distribution(variance, draws):
    drawn = tables.wide_skellam(words(3), DRAWS, variance=variance)
    assert math.ceil(variance / tables.WIDEST**2) == draws
    reach = int(np.abs(drawn).max())
    counts = np.bincount(drawn + reach, minlength=2 * reach + 1)
    expected = DRAWS * stats.skellam.pmf(np.arange(-reach, reach + 1), variance / 2, variance / 2)
    assert fits(counts, expected) > UNLIKELY
    assert drawn.var() == pytest.approx(variance, rel=0.01)


@pytest.mark.parametrize(("deviation", "k"), [(60.0, 2), (700.0, 20)])
def test_two_discrete_gaussians_make_a_wider_one(deviation, k):
    part = deviation / math.sqrt(1 + k**2)
    places = np.arange(-12 * math.ceil(part), 12 * math.ceil(part) + 1.0)
    spread = np.zeros(k * (len(places) - 1) + 1)
    spread[::k] = gaussian_pmf(part, places)
    made = np.convolve(gaussian_pmf(part, places), spread)
    reach = len(made) // 2
    np.testing.assert_allclose(made, gaussian_pmf(deviation, np.arange(-reach, reach + 1.0)), atol=1e-15)


@pytest.mark.parametrize("deviation", [1025.0, 3e4, tables.LARGEST])
def test_noise_wider_than_a_table_has_the_distribution_of_a_table(deviation):
    drawn = tables.wide_gaussian(words(4), DRAWS, deviation=deviation)
    edges = np.round(stats.norm.ppf(np.linspace(0, 1, 501)[1:-1]) * deviation) + 0.5
    counts, _ = np.histogram(drawn, np.concatenate([[-np.inf], edges, [np.inf]]))
    expected = DRAWS * np.diff(np.concatenate([[0], stats.norm.cdf(edges / deviation), [1]]))
    assert fits(counts, expected) > UNLIKELY
    assert drawn.var() == pytest.approx(deviation**2, rel=8 / math.sqrt(DRAWS))


def test_noise_that_is_too_wide_is_refused_with_the_fix():
    with pytest.raises(SettingError, match=r"at most 524,288 steps.*use a coarser step"):
        tables.wide_gaussian(words(), 1, deviation=1e6)
    with pytest.raises(SettingError, match=r"at most 32,768 steps.*use a coarser step"):
        tables.wide_skellam(words(), 1, variance=1e10)
    for table, wrong in ((tables.discrete_gaussian, 0.0), (tables.discrete_gaussian, 1025.0), (tables.skellam, -1.0)):
        with pytest.raises(SettingError):
            table(wrong)


def test_secure_noise_has_the_shape_that_is_asked_for_and_never_comes_twice():
    noise, like = SecureNoise(), np.zeros((3, 4), np.float32)
    first, second, others = noise.normal(like), noise.normal(like), SecureNoise().normal(like)
    assert first.shape == (3, 4) and first.dtype == np.float32
    assert len({array.tobytes() for array in (first, second, others)}) == 3
    assert noise.laplace(like).shape == (3, 4) and noise.laplace(like).dtype == np.float32
    assert noise.skellam(9.0, like).dtype == noise.discrete_gaussian(3.0, like).dtype == np.int32


def test_secure_noise_can_be_neither_seeded_nor_saved():
    with pytest.raises(TypeError):
        SecureNoise(bytes(32))
    with pytest.raises(TypeError):
        pickle.dumps(SecureNoise())


FORKED = """
import os, numpy as np
from shoal.noise.source import SecureNoise
noise, like = SecureNoise(), np.zeros(4)
if os.fork() == 0:
    print(noise.normal(like).tobytes().hex(), flush=True)
    os._exit(0)
os.wait()
print(noise.normal(like).tobytes().hex())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_forked_process_draws_noise_of_its_own():
    drawn = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True).stdout.split()
    assert len(drawn) == 2
    assert drawn[0] != drawn[1]
