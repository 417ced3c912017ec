"""One flat vector with a layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shoal.errors import SettingError
from shoal.vector import Layout, Part, is_finite, norm, norm1

shapes = st.lists(arrays.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4), min_size=1, max_size=4)


@given(shapes=shapes, seed=st.integers(0, 100))
@settings(max_examples=25)  # XLA compiles for every shape
def test_unflatten_undoes_flatten(shapes, seed):
    random = np.random.default_rng(seed)
    named = {f"p{i}": random.normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)}
    layout = Layout.of(named)
    for back in (layout.unflatten(layout.flatten(named)), layout.unflatten(_through_jax(layout, named))):
        assert back.keys() == named.keys()
        assert all(np.array_equal(back[name], named[name]) for name in named)


def _through_jax(layout, named):
    return layout.flatten({name: jnp.asarray(array) for name, array in named.items()})


def test_numpy_and_jax_flatten_alike(random):
    named = {"a": random.normal(size=(2, 3)).astype(np.float32), "b": random.normal(size=4).astype(np.float32)}
    layout = Layout.of(named)
    assert np.array_equal(layout.flatten(named), _through_jax(layout, named))


def test_parts_keep_their_dtype():
    layout = Layout((Part("step", (), "int32"), Part("w", (2,), "float32")))
    back = layout.unflatten(layout.flatten({"step": np.int32(7), "w": np.ones(2, np.float32)}))
    assert back["step"].dtype == np.int32
    assert back["step"] == 7


def test_equal_layouts_have_equal_digests_and_others_do_not():
    a = Layout((Part("w", (2,)),))
    assert a.digest() == Layout((Part("w", (2,)),)).digest()
    others = [Layout((Part("v", (2,)),)), Layout((Part("w", (3,)),)), Layout((Part("w", (2,)),), "float64")]
    assert a.digest() not in {other.digest() for other in others}


def test_what_does_not_fit_is_refused():
    layout = Layout((Part("w", (2,)),))
    with pytest.raises(SettingError, match="this layout holds w"):
        layout.flatten({"v": np.ones(2)})
    with pytest.raises(SettingError, match=r"w has shape \(3,\)"):
        layout.flatten({"w": np.ones(3)})
    with pytest.raises(SettingError, match="a vector of 2"):
        layout.unflatten(np.ones(3))
    with pytest.raises(SettingError, match="different names"):
        Layout((Part("w", (2,)), Part("w", (2,))))


@pytest.mark.parametrize("around", [lambda call: call, jax.jit, jax.vmap], ids=["by itself", "compiled", "in lanes"])
@pytest.mark.parametrize("largest", [3e38, 2.0**127, 2.0**126, 1e20, 1e-37])
def test_the_norm_of_a_vector_with_a_number_near_the_end_of_float32_is_its_length(around, largest):
    vector = np.array([[largest, 1e-38, 0.0, -largest / 2]], np.float32)
    found = around(norm)(jnp.asarray(vector if around is jax.vmap else vector[0]))
    assert float(jnp.ravel(found)[0]) == pytest.approx(np.linalg.norm(vector.astype(np.float64)), rel=1e-6)


@pytest.mark.parametrize("size", [0, 1, 33, 1000, 3_000_001])
def test_the_norm_of_a_long_float32_vector_is_exact_to_a_millionth(size):
    vector = np.random.default_rng(size).normal(size=size).astype(np.float32) + np.float32(3)
    exact = np.linalg.norm(vector.astype(np.float64))
    assert float(norm(vector)) == pytest.approx(exact, rel=1e-12)
    assert float(norm(jnp.asarray(vector))) == pytest.approx(exact, rel=2e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_single_bad_number_is_seen(bad):
    vector = np.zeros(100, np.float32)
    assert is_finite(vector)
    vector[57] = bad
    assert not is_finite(vector)
    assert not bool(is_finite(jnp.asarray(vector)))


@pytest.mark.parametrize("size", [0, 1, 33, 3_000_001])
def test_the_l1_norm_of_a_long_float32_vector_is_exact_to_a_millionth(size):
    vector = np.random.default_rng(0).normal(size=size).astype(np.float32)
    wanted = np.abs(vector.astype(np.float64)).sum()
    assert float(norm1(vector)) == pytest.approx(wanted, rel=1e-12)
    assert float(norm1(jnp.asarray(vector))) == pytest.approx(wanted, rel=1e-6)
