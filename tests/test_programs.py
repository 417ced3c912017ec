"""A process that tries many studies keeps the compiled programs of the last ones."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import numpy as np

from shoal.programs import KEPT, compiled


def alive() -> int:
    """How many compiled programs this process has."""
    gc.collect()
    return len(jax.devices()[0].client.live_executables())


def test_programs_of_studies_long_past_are_let_go():
    @compiled()
    def scaled(factor, x):
        return x * factor + factor

    x = jnp.ones(3)
    before = alive()
    for factor in range(2 * KEPT):
        assert scaled(factor, x).tolist() == [2 * factor] * 3
    assert KEPT <= alive() - before <= KEPT + 2
    assert scaled(0, x).tolist() == [0, 0, 0]


def test_one_study_is_compiled_once_also_inside_another_program():
    traced = []

    @compiled(2)
    def total(name, width, x):
        traced.append((name, width))
        return jnp.sum(x) * width

    for _ in range(3):
        assert total("a", 2, np.ones(4, np.float32)) == 8
        assert jax.jit(lambda x: total("a", 2, x) + total("a", 2, x))(np.ones(4, np.float32)) == 16
    assert traced == [("a", 2)]


def test_what_is_donated_is_used_up():
    @compiled(1, donated=(2,))
    def added(factor, x, total):
        return total + factor * x

    total = jnp.zeros(3)
    assert added(2, jnp.ones(3), total).tolist() == [2, 2, 2]
    assert total.is_deleted()
