"""JAX models, beside scikit-learn and NumPy from the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

import shoal
from shoal.errors import DataError, SettingError, UnsupportedError
from tests.conftest import classification


def test_a_vector_and_its_parameters_are_the_same_numbers():
    model = shoal.models.mlp(4, hidden=(5, 3), classes=3)
    vector = np.asarray(model.init(shoal.Key.from_seed(0)))
    assert np.array_equal(model.vector(model.params(vector)), vector)


def test_logistic_regression_is_scikit_learns_from_the_same_weights():
    population = classification(sizes=(40, 60), classes=3)
    x, y = population.columns["x"], population.columns["y"]
    theirs = LogisticRegression(max_iter=1000).fit(x, y)
    model = shoal.models.logistic(4, classes=3)
    vector = model.vector({"weight": theirs.coef_.T.astype(np.float32), "bias": theirs.intercept_.astype(np.float32)})
    np.testing.assert_allclose(model.outputs(vector, x), theirs.decision_function(x), rtol=1e-4, atol=1e-5)
    assert np.array_equal(model.predict(vector, x), theirs.predict(x))
    assert shoal.evaluate(model, vector, population).pooled["accuracy"] == pytest.approx(theirs.score(x, y))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_perceptron_is_scikit_learns_from_the_same_weights():
    population = classification(sizes=(40, 60), classes=3)
    x, y = population.columns["x"], population.columns["y"]
    theirs = MLPClassifier((6, 5), max_iter=20, random_state=0).fit(x, y)
    model = shoal.models.mlp(4, hidden=(6, 5), classes=3)
    layers = [
        {"weight": w.astype(np.float32), "bias": b.astype(np.float32)}
        for w, b in zip(theirs.coefs_, theirs.intercepts_, strict=True)
    ]
    scores = model.outputs(model.vector(layers), x)
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    np.testing.assert_allclose(chances, theirs.predict_proba(x), atol=1e-5)


def test_two_classes_have_one_score():
    assert shoal.models.logistic(3).layout.size == 4
    assert shoal.models.mlp(3, hidden=(2,)).layout.size == 3 * 2 + 2 + 2 + 1


@pytest.mark.parametrize("rows", [1, 2, 3, 1023, 1024, 1025, 2500])
def test_outputs_do_not_depend_on_how_rows_are_cut(rows, random):
    model = shoal.models.logistic(3)
    vector = random.normal(size=4).astype(np.float32)
    x = random.normal(size=(rows, 3)).astype(np.float32)
    params = model.params(vector)
    np.testing.assert_allclose(model.outputs(vector, x), x @ params["weight"] + params["bias"], rtol=1e-4, atol=1e-5)


def test_dropout_is_in_training_and_not_in_evaluation(random):
    def drop(p, x, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), 2 * x, 0) @ p["w"]

    model = shoal.models.from_functions(
        lambda key: {"w": jnp.ones(8)}, lambda p, x: x @ p["w"], loss="squared_error", train=drop
    )
    population = shoal.Population.from_arrays(random.normal(size=(30, 8)), random.normal(size=30), groups=[0] * 30)
    plan = shoal.Plan(shoal.FedAvg(model, client_optimizer=shoal.sgd(0.01)), rounds=2)
    first, again, other = (shoal.simulate(plan, population, seed=s).vector for s in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    x = population.columns["x"]
    np.testing.assert_allclose(model.outputs(first, x), x @ first, rtol=1e-4, atol=1e-4)


def test_a_flax_module_trains():
    from flax import linen

    class Small(linen.Module):
        @linen.compact
        def __call__(self, x, train: bool = False):
            x = linen.Dropout(0.1, deterministic=not train)(linen.relu(linen.Dense(8)(x)))
            return linen.Dense(3)(x)

    population = classification(sizes=(50, 30, 60), classes=3)
    model = shoal.models.from_flax(Small(), shape=(4,), loss="cross_entropy", training="train")
    plan = shoal.Plan(shoal.FedAvg(model, batch_size=10, epochs=2), rounds=15)
    result = shoal.simulate(plan, population, test=population)
    assert result.history.rows[-1]["test accuracy"] > 0.7
    params = jax.tree.map(jnp.asarray, model.params(result.vector))
    theirs = Small().apply({"params": params}, population.columns["x"])
    np.testing.assert_allclose(result.outputs(population.columns["x"]), theirs, rtol=1e-4, atol=1e-5)
    assert plan.digest() == shoal.Plan(shoal.FedAvg(model, batch_size=10, epochs=2), rounds=15).digest()


def test_a_flax_module_with_running_state_is_refused():
    from flax import linen

    class Normed(linen.Module):
        @linen.compact
        def __call__(self, x, train: bool = False):
            return linen.BatchNorm(use_running_average=not train)(x)

    with pytest.raises(UnsupportedError, match="batch_stats beside its parameters"):
        shoal.models.from_flax(Normed(), shape=(4,), loss="squared_error", training="train")
    with pytest.raises(UnsupportedError, match="takes a flax linen module, not a int"):
        shoal.models.from_flax(3, shape=(4,), loss="squared_error")


def test_an_equinox_module_trains():
    import equinox

    def make(key):
        a, b = jax.random.split(key)
        layers = [equinox.nn.Linear(4, 8, key=a), equinox.nn.Lambda(jax.nn.relu), equinox.nn.Dropout(0.1)]
        return equinox.nn.Sequential([*layers, equinox.nn.Linear(8, 3, key=b)])

    population = classification(sizes=(50, 30, 60), classes=3)
    model = shoal.models.from_equinox(make, loss="cross_entropy")
    plan = shoal.Plan(shoal.FedAvg(model, batch_size=10, epochs=2), rounds=15)
    result = shoal.simulate(plan, population, test=population)
    assert result.history.rows[-1]["test accuracy"] > 0.7


def test_what_is_no_equinox_module_is_refused():
    with pytest.raises(UnsupportedError, match="makes a callable module"):
        shoal.models.from_equinox(lambda key: 3, loss="squared_error")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": np.zeros((4, 5)), "y": np.zeros(4, int)}, r"rows of 'x' have shape \(5,\)"),
        ({"x": np.zeros((4, 3)), "y": np.full(4, 2)}, "labels are whole numbers from 0 to 1"),
        ({"x": np.zeros((4, 3))}, "no column 'y'"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_anything_runs(columns, message):
    population = shoal.Population.from_clients({"a": columns})
    plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3)), rounds=1)
    with pytest.raises(DataError, match=message):
        shoal.simulate(plan, population)


def test_models_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match="at least 2 classes"):
        shoal.models.logistic(3, classes=1)
    with pytest.raises(SettingError, match="multiples of 4"):
        shoal.models.cnn((30, 28, 1))
