"""Matrices of correlated noise, against dense algebra, brute force and published numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import SettingError
from shoal.key import Key
from shoal.matrices import Banded, Blt, Tree, toeplitz
from shoal.matrices.spans import sensitivity_squared

ROUNDS, SIZE = 13, 5


def spans(rounds):
    """The tree's matrix: a row for each whole span of 1, 2, 4, ... rounds."""
    rows = []
    for level in range(rounds.bit_length()):
        for begin in range(0, rounds - (1 << level) + 1, 1 << level):
            row = np.zeros(rounds)
            row[begin : begin + (1 << level)] = 1
            rows.append(row)
    return np.array(rows)


def dense(matrix):
    """C, by its definition."""
    if isinstance(matrix, Tree):
        return spans(matrix.rounds)
    if isinstance(matrix, Banded):
        column = np.concatenate([matrix.column, np.zeros(matrix.rounds)])[: matrix.rounds]
    else:
        ages = np.arange(matrix.rounds - 1)
        column = np.concatenate([[1.0], sum(w * d**ages for w, d in zip(matrix.weights, matrix.decays, strict=True))])
    lower = np.subtract.outer(np.arange(matrix.rounds), np.arange(matrix.rounds))
    return np.where(lower >= 0, column[np.maximum(lower, 0)], 0.0)


def turns(rounds, separation, begin=0):
    """All rounds in which a client can take part."""
    yield ()
    for first in range(begin, rounds):
        yield from ((first, *rest) for rest in turns(rounds, separation, first + separation))


def longest(c, separation):
    return max(np.linalg.norm(c[:, list(taken)].sum(axis=1)) for taken in turns(c.shape[1], separation))


def rows(matrix, like):
    """What a run adds in each round with these keys, and its draws as they come."""
    memory, found = matrix.begin(SIZE), []
    for number in range(matrix.rounds):
        noise, memory = matrix.row(Key.from_seed(7).split(number), like, memory)
        found.append(noise)
    return np.array(found)


@pytest.mark.parametrize(
    "matrix",
    [Banded(ROUNDS, 4), Banded(ROUNDS, 5, bands=3), Banded(ROUNDS, 1), Blt(ROUNDS, 4), Blt(ROUNDS, 9, buffers=3)],
)
def test_noise_row_by_row_is_the_inverse_of_the_matrix_times_the_draws(matrix):
    like = np.zeros(SIZE, np.float32)
    draws = np.array([Key.from_seed(7).split(number).normal(like) for number in range(ROUNDS)], np.float64)
    np.testing.assert_allclose(rows(matrix, like), np.linalg.solve(dense(matrix), draws), atol=2e-6)


def test_a_trees_noise_is_the_least_squares_estimate_from_the_draws_of_its_whole_spans():
    like = np.zeros(SIZE, np.float32)

    def drawn(end, level):
        return Key.from_seed(7).split(end - 1).split("span").split(level).normal(like).astype(np.float64)

    expected = []
    for rounds in range(1, ROUNDS + 1):
        total, begin = np.zeros(SIZE), 0
        for level in reversed(range(rounds.bit_length())):
            if rounds >> level & 1:  # one whole span: fit its rounds to all its own spans, and add them up
                c = spans(1 << level)
                ends = [begin + int(np.flatnonzero(row)[-1]) + 1 for row in c]
                draws = np.array(
                    [drawn(end, int(row.sum()).bit_length() - 1) for end, row in zip(ends, c, strict=True)]
                )
                total += np.linalg.lstsq(c, draws, rcond=None)[0].sum(axis=0)
                begin += 1 << level
        expected.append(total)
    np.testing.assert_allclose(np.cumsum(rows(Tree(ROUNDS, 4), like), axis=0), expected, atol=3e-6)


@pytest.mark.parametrize("matrix", [Tree(ROUNDS, 4), Banded(ROUNDS, 4), Blt(ROUNDS, 4)])
def test_traced_in_a_loop_the_noise_is_the_same(matrix):
    def one(number, carry):
        memory, found = carry
        noise, memory = matrix.row(Key.from_seed(7).traceable().split(number), jnp.zeros(SIZE), memory)
        return memory, found.at[number].set(noise)

    begin = jax.tree.map(jnp.asarray, matrix.begin(SIZE))
    found = jax.jit(lambda c: jax.lax.fori_loop(0, ROUNDS, one, c))((begin, jnp.zeros((ROUNDS, SIZE))))[1]
    np.testing.assert_allclose(found, rows(matrix, np.zeros(SIZE, np.float32)), atol=2e-6)


@settings(max_examples=25)
@given(rounds=st.integers(1, 12), separation=st.integers(2, 8), kind=st.sampled_from([Tree, Banded, Blt]))
def test_no_turns_of_a_client_add_more_than_the_sensitivity_and_some_add_as_much(rounds, separation, kind):
    matrix = kind(rounds, separation)
    assert matrix.sensitivity == pytest.approx(longest(dense(matrix), separation), rel=1e-6)


def test_no_contributions_of_length_one_add_more_than_the_sensitivity(random):
    for matrix in (Tree(9, 2), Banded(9, 2), Blt(9, 2)):
        c = dense(matrix)
        for taken in itertools.islice(turns(9, 2), 1, None, 3):
            given = np.zeros((9, SIZE))
            given[list(taken)] = random.normal(size=(len(taken), SIZE))
            given /= np.maximum(np.linalg.norm(given, axis=1, keepdims=True), 1.0)
            assert np.linalg.norm(c @ given) <= matrix.sensitivity * (1 + 1e-9)


def test_a_tree_searched_through_is_brute_force_and_never_more_than_its_bound():
    for rounds, separation in itertools.product(range(1, 20), range(3, 8)):
        found = sensitivity_squared(rounds, separation)
        assert found == pytest.approx(longest(spans(rounds), separation) ** 2)


@pytest.mark.parametrize(
    ("rounds", "separation", "squared"), [(2048, 512, 64), (2000, 100, 425), (8, 1, 8 + 2 * 8 + 4 * 8 + 8 * 8)]
)
def test_the_sensitivity_of_known_trees(rounds, separation, squared):
    assert sensitivity_squared(rounds, separation) == squared


def test_many_turns_or_an_odd_separation_are_bounded_from_above():
    assert 425 <= sensitivity_squared(2000, 99) <= 469  # made coarser
    every_other = spans(512)[:, ::2].sum(axis=1)
    assert sensitivity_squared(512, 2) >= every_other @ every_other  # 256 turns are not searched through


@pytest.mark.parametrize(("rounds", "expected"), [(128, 1.6156), (2048, 1.8690)])
def test_the_sensitivity_of_the_square_root_where_clients_come_once(rounds, expected):
    steps = np.arange(1, rounds)
    root = np.concatenate([[1.0], np.cumprod((2 * steps - 1) / (2 * steps))])
    assert toeplitz.sensitivity(root, rounds=rounds, separation=rounds) == pytest.approx(expected, abs=5e-5)


def test_the_best_bands_are_those_that_jax_privacy_finds():
    # matrix_factorization.toeplitz.optimize_banded_toeplitz(2000, bands=100) of jax-privacy 2.0.0
    found = np.array([0.48137796, 0.25522554, 0.20007595, 0.17300887, 0.15633635, 0.14480014])
    np.testing.assert_allclose(Banded(2000, 100).column[:6], found / found[0], rtol=2e-4)


def test_no_buffers_nearby_are_better_than_the_best(random):
    best = Blt(200, 20)

    def noise(weights, decays):
        sensitivity = toeplitz.sensitivity(toeplitz.buffered_column(weights, decays, 200), rounds=200, separation=20)
        return toeplitz.error(toeplitz.buffered_summed_inverse(weights, decays, 200)) * sensitivity

    assert noise(best.weights, best.decays) == pytest.approx(best.error)
    for _ in range(50):
        near = np.exp(0.05 * random.normal(size=4))
        assert noise(best.weights * near[:2], np.minimum(best.decays * near[2:], 0.999)) >= best.error * (1 - 1e-4)


@pytest.mark.parametrize("matrix", [Tree(40, 10), Banded(40, 10), Blt(40, 10)])
def test_the_error_is_that_of_the_noise_in_models(matrix):
    like = np.zeros(20_000, np.float32)
    memory, total, squares = matrix.begin(like.size), np.zeros(like.size), []
    for number in range(40):
        noise, memory = matrix.row(Key.from_seed(3).split(number), like, memory)
        total += noise * matrix.sensitivity
        squares.append(np.mean(total**2))
    assert np.sqrt(np.mean(squares)) == pytest.approx(matrix.error, rel=0.02)


def test_bands_are_better_than_buffers_and_those_than_a_tree_and_that_than_independent_noise():
    banded, blt, tree = (kind(2000, 100).error for kind in (Banded, Blt, Tree))
    alone = np.sqrt(np.mean(np.arange(1, 2001)) * 20)  # 20 turns; noise of t rounds adds up to t times the variance
    assert banded < blt < 1.1 * banded < tree / 1.5 < alone / 5


def test_bands_over_the_separation_are_refused():
    with pytest.raises(SettingError, match="bands are from 1 to 20 here"):
        Banded(200, 20, bands=21)
