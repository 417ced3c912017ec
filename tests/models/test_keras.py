"""Keras models train here as Keras trains them, and come back as Keras models."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import shoal
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.models import from_keras

os.environ["KERAS_BACKEND"] = "jax"
keras = pytest.importorskip("keras")
layers = keras.layers

# Keras 3.15 reads its own variables in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def net(*parts, shape=(4,), **compiled):
    keras.utils.set_random_seed(0)
    made = keras.Sequential([keras.Input(shape), *parts])
    if compiled:
        made.compile(optimizer=keras.optimizers.SGD(0.1), **compiled)
    return made


def rows(random, count=25, shape=(4,), classes=3):
    return random.normal(size=(count, *shape)).astype(np.float32), random.integers(0, classes, count)


def federated(model, x, y, **how):
    """One round of one client, in Keras' own order."""
    algorithm = shoal.FedAvg(model, order="given", client_optimizer=shoal.sgd(0.1), **how)
    return shoal.simulate(shoal.Plan(algorithm, rounds=1), {"a": (x, y)})


def conv_net():
    keras.utils.set_random_seed(0)
    picture = keras.Input((6, 6, 1))
    hidden = layers.Flatten()(layers.Conv2D(2, 3, activation="relu")(picture))
    made = keras.Model(picture, layers.Dense(3)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss)
    return made, (6, 6, 1)


def softmax_net():
    parts = layers.Dense(5, activation="tanh"), layers.LayerNormalization(), layers.Dense(3, activation="softmax")
    return net(*parts, loss="sparse_categorical_crossentropy"), (4,)


@pytest.mark.parametrize("make", [conv_net, softmax_net])
def test_one_client_trains_as_keras_fits(make, random):
    made, shape = make()
    x, y = rows(random, shape=shape)
    model = from_keras(made)
    result = federated(model, x, y, epochs=2, batch_size=10)
    made.fit(x, y, epochs=2, batch_size=10, shuffle=False, verbose=0)
    for ours, theirs in zip(model.fitted(result.vector).get_weights(), made.get_weights(), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("units", "loss", "labels"),
    [
        (1, "mse", lambda y: y.astype(np.float32)),
        (1, "mae", lambda y: y.astype(np.float32)),
        (1, keras.losses.Huber(delta=0.5), lambda y: y.astype(np.float32)),
        (1, keras.losses.BinaryCrossentropy(from_logits=True), lambda y: y > 0),
        (3, keras.losses.CategoricalCrossentropy(from_logits=True), lambda y: np.eye(3, dtype=np.float32)[y]),
        (3, keras.losses.SparseCategoricalCrossentropy(from_logits=True), lambda y: y),
        (1, lambda truth, said: keras.ops.mean((truth - said) ** 4, axis=-1), lambda y: y.astype(np.float32)),
    ],
    ids=["mse", "mae", "huber", "binary", "categorical", "sparse", "function"],
)
def test_a_loss_of_keras_measures_what_keras_measures(units, loss, labels, random):
    made = net(layers.Dense(units), loss=loss)
    x, y = rows(random)
    model = from_keras(made)
    columns = {"x": x, "y": labels(y)}
    measured = model.measure(model.init(shoal.Key.from_seed(0)), columns)
    assert measured["loss"].shape == (25,)
    assert measured["loss"].mean() == pytest.approx(made.evaluate(x, labels(y), verbose=0), rel=1e-5)
    fitted = model.fitted(model.init(shoal.Key.from_seed(0)))
    assert fitted.evaluate(x, labels(y), verbose=0) == pytest.approx(made.evaluate(x, labels(y), verbose=0), rel=1e-5)


class Scaled(keras.losses.Loss):
    """A loss of a user who wrote no get_config."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, truth, said):
        return keras.ops.mean(self.scale * (truth - said) ** 2, axis=-1)


@pytest.mark.parametrize("kind", [keras.losses.Huber, Scaled])
def test_losses_that_keras_describes_alike_are_told_apart(kind, random):
    x, y = rows(random)
    made = [net(layers.Dense(1), loss=kind(size)) for size in (0.1, 2.0)]
    taken = [from_keras(model) for model in made]
    assert taken[0].loss != taken[1].loss
    assert taken[0].loss == from_keras(net(layers.Dense(1), loss=kind(0.1))).loss
    y = y.astype(np.float32)[:, None]
    for model, theirs in zip(taken, made, strict=True):
        measured = model.measure(model.init(shoal.Key.from_seed(0)), {"x": x, "y": y})
        assert measured["loss"].mean() == pytest.approx(theirs.evaluate(x, y, verbose=0), rel=1e-5)


def test_accuracy_of_probabilities_and_of_log_odds_is_that_of_keras(random):
    x, y = rows(random, classes=2)
    for activation, loss in (("sigmoid", "binary_crossentropy"), (None, "binary_cross_entropy")):
        made = net(layers.Dense(1, activation=activation))
        model = from_keras(made, loss=loss)
        vector = model.init(shoal.Key.from_seed(0))
        said = made.predict(x, verbose=0)[:, 0] > (0.5 if activation else 0.0)
        assert np.array_equal(model.predict(vector, x), said)
        accuracy = model.measure(vector, {"x": x, "y": y})["accuracy"].mean()
        assert accuracy == pytest.approx((said == y).mean())


def test_dropout_draws_from_the_clients_key_and_not_from_keras(random):
    made = net(layers.Dropout(0.5), layers.Dense(3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model = from_keras(made)
    params = model.params(model.init(shoal.Key.from_seed(0)))
    x, y = rows(random)
    plain = np.asarray(made(x))
    assert np.allclose(model.network.apply(params, x), plain, atol=1e-6)
    one, again, other = (np.asarray(model.network.train(params, x, jax.random.key(seed))) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)
    assert not np.allclose(one, plain)
    first, second = (federated(model, x, y).vector for _ in range(2))
    assert np.array_equal(first, second)


def test_the_model_comes_back_as_a_keras_model_that_is_saved_and_loaded(random, tmp_path):
    made, shape = softmax_net()
    x, y = rows(random, shape=shape)
    model = from_keras(made)
    before = [weight.copy() for weight in made.get_weights()]
    result = federated(model, x, y)
    fitted = model.fitted(result.vector)
    fitted.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.allclose(loaded.predict(x, verbose=0), result.outputs(x), atol=1e-6)
    assert all(np.array_equal(now, then) for now, then in zip(made.get_weights(), before, strict=True))
    with pytest.raises(UnsupportedError, match="has no model of its own"):
        shoal.models.linear(2).fitted(np.zeros(3, np.float32))


class Residual(keras.Model):
    def __init__(self, units=4, **settings):
        super().__init__(**settings)
        self.units = units
        self.inner = layers.Dense(units)

    def call(self, x):
        return x + self.inner(x)


def test_a_class_of_ones_own_is_a_model_once_it_has_seen_rows(random):
    x, _ = rows(random)
    with pytest.raises(SettingError, match="is not built"):
        from_keras(Residual(), loss="mse")
    made = Residual()
    made(x)
    model = from_keras(made, loss="mse")
    assert [part.shape for part in model.layout.parts] == [(4,), (4, 4)]
    vector = model.init(shoal.Key.from_seed(0))
    assert np.allclose(model.outputs(vector, x), made(x), atol=1e-6)
    assert np.allclose(model.fitted(vector)(x), made(x), atol=1e-6)


def test_parts_are_named_by_layer_and_equal_models_are_equal_values():
    def make(scale):
        made = net(layers.Dense(3, name="scores"), loss="mse")
        made.set_weights([scale * np.ones((4, 3), np.float32), np.zeros(3, np.float32)])
        return from_keras(made)

    one, same, other = make(1.0), make(1.0), make(2.0)
    assert [part.name for part in one.layout.parts] == ["scores/bias", "scores/kernel"]
    digests = [shoal.Plan(shoal.FedAvg(model), rounds=1).digest() for model in (one, same, other)]
    assert len({one.network.fingerprint, other.network.fingerprint}) == 2
    assert digests[0] != digests[2]


def test_rows_of_any_length_are_taken_as_the_model_takes_them(random):
    model = from_keras(net(layers.Conv1D(2, 3), layers.GlobalAveragePooling1D(), shape=(None, 4)), loss="mse")
    vector = model.init(shoal.Key.from_seed(0))
    assert [model.outputs(vector, np.zeros((2, length, 4), np.float32)).shape for length in (3, 50)] == [(2, 2)] * 2
    with pytest.raises(DataError, match="does not take"):
        model.check(shoal.Population.from_clients({"a": (np.zeros((1, 2, 4)), np.zeros((1, 2)))}).everything())


def test_frozen_layers_stay_and_do_not_travel(random):
    frozen = layers.BatchNormalization()
    frozen.trainable = False
    model = from_keras(net(frozen, layers.Dense(2, name="last")), loss="cross_entropy")
    assert {part.name for part in model.layout.parts} == {"last/bias", "last/kernel"}
    x, y = rows(random, classes=2)
    assert np.isfinite(federated(model, x, y).vector).all()


def test_what_would_be_lost_in_silence_is_refused():
    two = keras.Input((4,))
    for made, said in (
        (net(layers.BatchNormalization()), "moving_mean.*GroupNormalization"),
        (net(layers.Dense(2, kernel_regularizer="l2")), "losses of its own"),
        (keras.Model(two, [layers.Dense(1)(two), layers.Dense(1)(two)]), "1 inputs and 2 outputs"),
        (net(layers.Dense(2, dtype="float16")), "weights are float32"),
        (net(layers.Embedding(9, 2, mask_zero=True), shape=(5,)), "mask"),
        (shoal.models.linear(2), "takes a keras.Model, not a JaxModel"),
    ):
        with pytest.raises(UnsupportedError, match=said):
            from_keras(made, loss="mse")
    for made, loss, said in (
        (net(layers.Dense(1)), None, "not compiled with a loss"),
        (net(layers.Dense(1)), "nonsense", "what compile takes"),
        (keras.Sequential([layers.Dense(1)]), "mse", "is not built"),
        (net(layers.Flatten()), "mse", "nothing to train"),
    ):
        with pytest.raises(SettingError, match=said):
            from_keras(made, loss=loss)
    with pytest.raises(UnsupportedError, match="reduces by 'sum'"):
        from_keras(net(layers.Dense(1)), loss=keras.losses.MeanSquaredError(reduction="sum"))


def test_labels_that_make_no_sense_are_refused_before_the_first_round(random):
    x, y = rows(random, classes=3)
    for loss, labels, said in (
        ("sparse_categorical_crossentropy", y + 1, "whole numbers from 0 to 2"),
        ("categorical_crossentropy", y, "compares them with outputs of shape"),
        ("mse", y, "outputs of shape"),
    ):
        model = from_keras(net(layers.Dense(3)), loss=loss)
        with pytest.raises(DataError, match=said):
            federated(model, x, labels)


def test_keras_on_another_backend_gets_a_sentence():
    program = """
import keras, shoal
try:
    shoal.models.from_keras(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), loss="mse")
except shoal.errors.UnsupportedError as error:
    print(error)
"""
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("Keras runs on numpy here")
    assert "set KERAS_BACKEND=jax" in said.stdout
