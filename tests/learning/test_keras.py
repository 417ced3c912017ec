"""What people bring from Keras: models and optimizers."""

from __future__ import annotations

import os

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import shoal
from shoal import learning
from shoal.errors import SettingError, UnsupportedError
from shoal.learning.keras_optimizers import from_keras_optimizer

os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")

# Keras 3.15 reads its own variables in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    "given",
    [
        keras.optimizers.SGD(0.1),
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        keras.optimizers.Adagrad(0.1),
        keras.optimizers.RMSprop(0.01, rho=0.8, momentum=0.5),
        keras.optimizers.RMSprop(0.01, centered=True),
        keras.optimizers.Adam(0.01, beta_1=0.8),
    ],
    ids=lambda given: type(given).__name__,
)
def test_an_optimizer_takes_the_steps_that_keras_takes(given, random):
    twin = from_keras_optimizer(given).build(0)
    variable = keras.Variable(np.ones(5, np.float32))
    weights = jnp.ones(5)
    memory = twin.init(weights)
    for _ in range(4):
        gradient = jnp.asarray(random.normal(size=5), jnp.float32)
        given.apply([gradient], [variable])
        step, memory = twin.update(gradient, memory, weights)
        weights = optax.apply_updates(weights, step)
    assert np.allclose(variable.value, weights, atol=1e-5)


def test_a_rate_is_the_number_that_was_written():
    assert from_keras_optimizer(keras.optimizers.SGD(0.1)) == shoal.sgd(0.1)


def test_what_has_no_twin_is_refused():
    for given, said in (
        (keras.optimizers.Ftrl(0.1), "Ftrl has no twin"),
        (keras.optimizers.SGD(0.1, clipnorm=1.0), "clipnorm=1.0"),
        (keras.optimizers.Adam(0.1, amsgrad=True), "amsgrad"),
        (keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), "schedule"),
    ):
        with pytest.raises(UnsupportedError, match=said):
            learning.build_weighted_fed_avg(shoal.models.linear(2), given)


def test_a_process_trains_a_keras_model_as_keras_does(random):
    def model_fn():
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        net.compile(loss="mse", optimizer=keras.optimizers.SGD(0.1))
        return net

    x, y = random.normal(size=(24, 3)).astype(np.float32), random.normal(size=24).astype(np.float32)
    process = learning.build_weighted_fed_avg(
        model_fn, lambda: keras.optimizers.SGD(0.1), order="given", batch_size=8, epochs=2
    )
    state = process.next(process.initialize(), [(x, y)]).state
    trained = model_fn()
    trained.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    given = process.model.fitted(process.get_model_weights(state))
    for ours, theirs in zip(given.get_weights(), trained.get_weights(), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


def test_a_model_without_a_loss_takes_the_builders():
    net = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(SettingError, match="not compiled with a loss"):
        learning.build_fed_eval(net)
    measured = learning.build_fed_eval(net, loss="cross_entropy")
    metrics = measured.next(measured.initialize(), [(np.zeros((4, 3), np.float32), np.zeros(4, np.int32))]).metrics
    assert metrics["client_work"]["eval"]["current_round_metrics"]["num_examples"] == 4
