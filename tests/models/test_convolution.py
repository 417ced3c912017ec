"""Rewritten convolutions: the same function, in the layout that is fast inside loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

import shoal
from shoal.models.convolution import canonical

FAST = "b01f_01io->b01f"


def network(strides=(1, 1), padding="SAME", kernel=3, groups=1, dilation=(1, 1)):
    def loss(w, x):
        for layer in w:
            x = jax.lax.conv_general_dilated(
                x, layer, strides, padding, rhs_dilation=dilation, feature_group_count=groups,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
            x = jnp.tanh(x)
        return jnp.sum(x**2)

    random = np.random.default_rng(0)
    shapes = [(kernel, kernel, 4 // groups, 8), (kernel, kernel, 8 // groups, 4)]
    return loss, [jnp.asarray(random.normal(size=s), jnp.float32) for s in shapes]


CASES = [
    {},
    {"kernel": 5},
    {"kernel": 1},
    {"padding": "VALID"},
    {"strides": (2, 2)},
    {"strides": (1, 2), "padding": "VALID"},
    {"dilation": (2, 2)},
    {"groups": 2},
    {"groups": 4, "kernel": 5},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_the_same(case, random):
    loss, weights = network(**case)
    x = jnp.asarray(random.normal(size=(3, 12, 10, 4)), jnp.float32)
    wanted = jax.grad(loss, (0, 1))(weights, x)
    found = jax.jit(canonical(jax.grad(loss, (0, 1))))(weights, x)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * float(jnp.abs(b).max()))


def convolutions(function, *args):
    text = jax.jit(function).lower(*args).compile().as_text()
    return [
        line.split("dim_labels=")[1].split(",")[0].split()[0] for line in text.splitlines() if "dim_labels=" in line
    ]


@pytest.mark.parametrize("case", [{}, {"kernel": 5}, {"strides": (2, 2)}], ids=str)
def test_every_convolution_inside_a_loop_has_the_fast_layout(case, random):
    loss, weights = network(**case)
    x = jnp.asarray(random.normal(size=(3, 12, 12, 4)), jnp.float32)

    def descend(gradient):
        def step(_, w):
            return jax.tree.map(lambda a, b: a - 0.1 * b, w, gradient(w, x))

        return lambda w: jax.lax.fori_loop(0, 3, step, w)

    slow = convolutions(descend(jax.grad(loss)), weights)
    fast = convolutions(descend(canonical(jax.grad(loss))), weights)
    assert set(slow) - {FAST}, "XLA now does this by itself: `canonical` can go"
    assert set(fast) == {FAST}


def test_a_function_without_convolutions_is_left_alone():
    def function(x):
        return {"a": jnp.sin(x), "b": (x, 2)}

    assert jax.tree.structure(canonical(function)(1.0)) == jax.tree.structure(function(1.0))


def test_convolutions_inside_calls_and_scans_are_rewritten(random):
    kernel = jnp.asarray(random.normal(size=(3, 3, 2, 2)), jnp.float32)

    @jax.jit
    def blur(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def loss(k, x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(blur(x, k)), None), x, None, length=3)
        return jnp.sum(x)

    x = jnp.asarray(random.normal(size=(2, 6, 6, 2)), jnp.float32)
    np.testing.assert_allclose(
        jax.jit(canonical(jax.grad(loss)))(kernel, x), jax.grad(loss)(kernel, x), rtol=1e-4, atol=1e-5
    )
    assert set(convolutions(canonical(jax.grad(loss)), kernel, x)) == {FAST}


def test_the_cnn_is_scipys_correlation(random):
    model = shoal.models.cnn((8, 8, 2), classes=3)
    vector = model.init(shoal.Key.from_seed(0))
    params = jax.tree.map(np.asarray, model.params(vector))
    x = random.normal(size=(2, 8, 8, 2)).astype(np.float32)
    wanted = np.stack([numpy_cnn(params, picture) for picture in x])
    np.testing.assert_allclose(model.outputs(vector, x), wanted, rtol=1e-4, atol=1e-4)


def numpy_cnn(params, picture):
    for name in ("convolution 1", "convolution 2"):
        weight, bias = params[name]["weight"], params[name]["bias"]
        layers = [
            sum(signal.correlate2d(picture[..., i], weight[..., i, o], "same") for i in range(weight.shape[2]))
            + bias[o]
            for o in range(weight.shape[3])
        ]
        picture = np.maximum(np.stack(layers, -1), 0)
        high, wide, channels = picture.shape
        picture = picture.reshape(high // 2, 2, wide // 2, 2, channels).max((1, 3))
    hidden = np.maximum(picture.ravel() @ params["hidden"]["weight"] + params["hidden"]["bias"], 0)
    return hidden @ params["output"]["weight"] + params["output"]["bias"]
