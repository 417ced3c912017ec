"""The rotation beside matrices from the definition."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal import Rotate
from shoal.aggregation import Update
from shoal.errors import SettingError
from shoal.key import Key
from shoal.vector import Layout, Part


def turned(step: Rotate, value):
    return step.encode(Update(value, 1, np.float32(1), {}, math.inf), None, Key.from_seed(0))[0].value


def hadamard(size: int):
    """Entry i, j is 1 if i and j have an even number of bits in common, else -1; over the root of the size."""
    return np.array([[(-1.0) ** (i & j).bit_count() for j in range(size)] for i in range(size)]) / math.sqrt(size)


@pytest.mark.parametrize("size", [1, 2, 4, 16, 64, 256])
def test_a_power_of_two_is_turned_by_a_hadamard_matrix_and_signs(size):
    matrix = turned(Rotate(5), np.eye(size)).T
    signs = matrix[0] * math.sqrt(size)
    np.testing.assert_allclose(np.abs(signs), 1, rtol=1e-6)
    np.testing.assert_allclose(matrix, hadamard(size) * signs, atol=1e-6)
    if size > 16:
        assert 0.2 < (signs > 0).mean() < 0.8


@pytest.mark.parametrize("size", [3, 5, 12, 31, 100])
def test_any_other_size_is_turned_as_two_powers_of_two_without_padding(size):
    block = 1 << (size.bit_length() - 1)
    matrix = turned(Rotate(5), np.eye(size)).T
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-6)
    first = np.eye(size)
    first[:block, :block] = turned(Rotate(5), np.eye(block)).T
    second = matrix @ np.linalg.inv(first)
    rest = size - block
    np.testing.assert_allclose(second[:rest, :rest], np.eye(rest), atol=1e-6)
    np.testing.assert_allclose(np.abs(second[rest:, rest:]), 1 / math.sqrt(block), rtol=1e-5)


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
def test_turning_back_gives_what_there_was_in_numpy_and_in_a_compiled_call(size):
    value = np.random.default_rng(size).normal(size=size).astype(np.float32)
    step = Rotate(1)
    there = turned(step, value)
    assert there.dtype == np.float32
    np.testing.assert_allclose(step.decode(there), value, atol=1e-5)
    compiled = jax.jit(lambda value: turned(step, value))(jnp.asarray(value))
    np.testing.assert_allclose(compiled, there, atol=1e-5)
    np.testing.assert_allclose(jax.jit(step.decode)(compiled), value, atol=1e-5)


def test_every_client_of_a_batch_and_every_row_is_turned_like_one_alone():
    rows, step = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32), Rotate()
    alone = np.stack([turned(step, row) for row in rows])
    np.testing.assert_allclose(jax.jit(jax.vmap(lambda row: turned(step, row)))(rows), alone, atol=1e-6)
    np.testing.assert_allclose(step.decode(alone), rows, atol=1e-6)


def test_what_was_given_is_not_changed():
    value = np.ones(5, np.float32)
    Rotate().decode(turned(Rotate(), value))
    assert value.tolist() == [1.0] * 5


def test_other_seeds_turn_another_way():
    value = np.arange(8, dtype=np.float32)
    assert not np.allclose(turned(Rotate(0), value), turned(Rotate(1), value))
    with pytest.raises(SettingError, match="seed"):
        Rotate(-1)


def test_one_large_number_is_spread_and_stays_under_what_is_said():
    size = 3000
    layout = Layout((Part("w", (size,)),))
    value = np.zeros(size, np.float32)
    value[-1] = 1
    most = Rotate().entry(1.0, layout)
    assert most < 0.3
    for vector in (value, np.full(size, 1 / math.sqrt(size), np.float32)):
        assert np.abs(turned(Rotate(), vector)).max() < most
    assert Rotate().entry(1.0, Layout((Part("w", (4,)),))) == 1.0  # too few numbers to promise anything


def test_the_rows_that_a_robust_rule_sees_are_turned_back_first():
    chain = Rotate() >> shoal.Collect() >> shoal.Median()
    layout = Layout((Part("w", (6,)),))
    bags = [
        chain.encode(
            np.full(6, number, np.float32), examples=1, notes={}, states=chain.start(layout), key=Key.from_seed(0),
            layout=layout,
        )[0]
        for number in (1, 2, 30)
    ]  # fmt: skip
    released = chain.decode(bags[0] + bags[1] + bags[2], key=Key.from_seed(0), layout=layout)
    np.testing.assert_allclose(released.value, 2, rtol=1e-6)
