"""scikit-learn estimators as federated models, beside the same estimators by hand and on pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor

import shoal
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.models import SklearnModel
from tests.conftest import classification, regression


def federated(estimator, population, rounds=3, classes=(0, 1, 2), **more):
    model = SklearnModel(estimator, features=population.columns["x"].shape[1], classes=classes)
    return model, shoal.simulate(shoal.Plan(shoal.FedAvg(model, **more), rounds=rounds), population)


@pytest.mark.parametrize("schedule", ["constant", "optimal", "invscaling"])
def test_sgd_is_the_hand_written_loop(schedule):
    population = classification(sizes=(30, 12, 45), classes=3)
    settings = {"loss": "log_loss", "learning_rate": schedule, "eta0": 0.05, "alpha": 0.05, "shuffle": False}
    _, result = federated(SGDClassifier(**settings), population, epochs=2)

    coefficients, intercept = np.zeros((3, 4)), np.zeros(3)
    for number in range(3):
        updates = []
        for name in population:
            own = SGDClassifier(**settings)
            own.partial_fit(np.zeros((3, 4)), [0, 1, 2], classes=[0, 1, 2])
            own.coef_[...], own.intercept_[...] = coefficients, intercept
            own.t_ = 1 + number * 2 * population[name].count
            for _ in range(2):
                own.partial_fit(population[name].rows("x").astype(float), population[name].rows("y"))
            updates.append((own.coef_.copy(), own.intercept_.copy()))
        counts = population.counts
        coefficients, intercept = (np.average([u[i] for u in updates], axis=0, weights=counts) for i in range(2))
    np.testing.assert_allclose(result.params["coef_"], coefficients, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.params["intercept_"], intercept, rtol=1e-4, atol=1e-5)


def test_one_client_alone_is_the_estimator_that_goes_on_by_itself():
    population = classification(sizes=(40,), classes=3)
    settings = {"loss": "log_loss", "learning_rate": "invscaling", "eta0": 0.1, "shuffle": False}
    _, result = federated(SGDClassifier(**settings), population, rounds=5, epochs=2)
    own, x = SGDClassifier(**settings), population.columns["x"].astype(float)
    for _ in range(10):
        own.partial_fit(x, population.columns["y"], classes=[0, 1, 2])
    np.testing.assert_allclose(result.params["coef_"], own.coef_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", [GaussianNB(), MultinomialNB(), BernoulliNB(), ComplementNB()], ids=str)
@pytest.mark.parametrize("one_class_each", [False, True])
def test_naive_bayes_in_one_round_is_exactly_the_pooled_fit(estimator, one_class_each, random):
    x, y = random.poisson(3, size=(200, 5)) + 1.0, random.integers(0, 3, 200)
    x[np.arange(200), y] += random.poisson(2, size=200)
    groups = y if one_class_each else random.integers(0, 6, 200)
    population = shoal.Population.from_arrays(x, y, groups=groups)
    model, result = federated(estimator, population, rounds=1)
    pooled = type(estimator)(**estimator.get_params()).fit(x, y)
    mine = model.fitted(result.vector)
    np.testing.assert_allclose(mine.predict_log_proba(x), pooled.predict_log_proba(x), rtol=1e-6, atol=1e-8)
    assert np.array_equal(result.predict(x), pooled.predict(x))


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"epochs": 2}, UnsupportedError),
        ({"server_optimizer": shoal.adam(0.1)}, UnsupportedError),
        ({"aggregation": shoal.mean()}, UnsupportedError),
        ({"rounds": 2}, SettingError),
    ],
    ids=str,
)
def test_counts_are_added_once_and_in_no_other_way(settings, error):
    with pytest.raises(error, match="counts"):
        federated(MultinomialNB(), classification(), **{"rounds": 1, "classes": (0, 1), **settings})


@pytest.mark.parametrize(
    "estimator",
    [SGDClassifier(loss="log_loss"), Perceptron(), MLPClassifier((8,), solver="sgd", learning_rate_init=0.2)],
    ids=str,
)
def test_clients_with_one_class_each_learn_all_classes_together(estimator):
    population = classification(sizes=(200,), classes=3)
    x, y = population.columns["x"], population.columns["y"]
    by_class = shoal.Population.from_arrays(x, y, groups=y)
    _, result = federated(estimator, by_class, rounds=60)
    assert (result.predict(x) == y).mean() > 0.55
    assert set(result.predict(x)) == {0, 1, 2}


@pytest.mark.parametrize(
    "estimator",
    [SGDRegressor(eta0=0.05, learning_rate="constant"), MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.02)],
    ids=str,
)
def test_regressors_learn(estimator):
    population = regression(sizes=(60, 80, 50))
    _, result = federated(estimator, population, rounds=80, classes=None, epochs=3)
    x, y = population.columns["x"], population.columns["y"]
    design = np.column_stack([x, np.ones(len(x))])
    best = np.mean((design @ np.linalg.lstsq(design, y)[0] - y) ** 2)
    assert np.mean((result.predict(x) - y) ** 2) < 1.3 * best
    assert {"loss", "absolute error"} <= result.evaluate(population).pooled.keys()


def test_the_fitted_estimator_is_scikit_learns_own():
    population = classification(sizes=(60, 40), classes=3)
    model, result = federated(SGDClassifier(loss="log_loss"), population)
    fitted = model.fitted(result.vector)
    x, y = population.columns["x"], population.columns["y"]
    assert isinstance(fitted, SGDClassifier)
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert result.evaluate(population).pooled["accuracy"] == pytest.approx(fitted.score(x, y))
    np.testing.assert_allclose(fitted.decision_function(x), x @ fitted.coef_.T + fitted.intercept_)


def test_training_leaves_the_users_estimator_alone():
    estimator = SGDClassifier()
    federated(estimator, classification(sizes=(30, 20), classes=3))
    assert not hasattr(estimator, "coef_")


def test_the_same_seed_twice_is_equal_to_the_bit_and_the_order_of_clients_does_not_matter_to_one():
    population = classification(sizes=(30, 20, 25), classes=3)
    vectors = [federated(SGDClassifier(), population)[1].vector for _ in range(2)]
    assert np.array_equal(*vectors)
    model = SklearnModel(SGDClassifier(), features=4, classes=(0, 1, 2))
    run = shoal.Plan(shoal.FedAvg(model), rounds=1)
    alone = shoal.simulate(run, population.select(["c1"])).vector
    shoal.simulate(run, population)  # leaves other weights in the estimator that clients share
    assert np.array_equal(alone, shoal.simulate(run, population.select(["c1"])).vector)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (LogisticRegression(), r"has no partial_fit.*SGDClassifier\(loss='log_loss'\)"),
        (SGDClassifier(average=True), "average=False"),
        (MiniBatchKMeans(), "is not known here"),
    ],
    ids=str,
)
def test_estimators_that_cannot_go_on_are_refused_with_the_way_out(estimator, message):
    with pytest.raises(UnsupportedError, match=message):
        SklearnModel(estimator, features=3, classes=(0, 1))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SklearnModel(SGDClassifier(), features=3), SettingError, "name all its classes"),
        (lambda: SklearnModel(SGDClassifier(), features=3, classes=(1,)), SettingError, "name all its classes"),
        (lambda: SklearnModel(SGDRegressor(), features=3, classes=(0, 1)), SettingError, "has no classes"),
        (lambda: SklearnModel(SGDClassifier(), features=0, classes=(0, 1)), SettingError, "at least one feature"),
    ],
)
def test_models_that_cannot_be_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_rules_that_need_gradients_are_refused():
    model = SklearnModel(SGDClassifier(), features=3, classes=(0, 1))
    with pytest.raises(UnsupportedError, match="Proximal corrects gradients, and SGDClassifier keeps its own"):
        shoal.FedProx(model, mu=0.1)
    with pytest.raises(UnsupportedError, match="brings its own optimizer, batch_size"):
        shoal.FedAvg(model, client_optimizer=shoal.sgd(0.1), batch_size=3)
    with pytest.raises(UnsupportedError, match="the compiled runtime"):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), classification(features=3), runtime="compiled")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((2, 4)), [0, 1], r"rows of 'x' have shape \(4,\)"),
        (np.zeros((2, 3)), [0, 7], "not one of the classes"),
    ],
)
def test_data_that_does_not_fit_is_refused(x, y, message):
    model = SklearnModel(SGDClassifier(), features=3, classes=(0, 1))
    population = shoal.Population.from_clients({"a": (x, y)})
    with pytest.raises(DataError, match=message):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), population)


@pytest.mark.parametrize("estimator", [SGDClassifier(), MLPClassifier((4,)), BernoulliNB()], ids=str)
def test_a_client_that_holds_nan_is_rejected_and_the_others_learn(estimator):
    population = classification(sizes=(30, 20, 25), classes=3)
    x = population.columns["x"].copy()
    x[35] = np.nan
    rounds = 1 if isinstance(estimator, BernoulliNB) else 2
    _, result = federated(estimator, population.with_column("x", x), rounds=rounds)
    assert [(row["clients"], row["rejected"]) for row in result.history] == [(2, 1)] * rounds
    assert np.isfinite(result.vector).all()


@pytest.mark.parametrize("estimator", [SGDRegressor(), MLPRegressor(solver="sgd")], ids=str)
def test_a_client_whose_training_runs_away_is_rejected(estimator):
    population = regression(sizes=(30, 20, 25))
    x = population.columns["x"].astype(float)
    x[30:50] *= 1e120
    _, result = federated(estimator, population.with_column("x", x), rounds=2, classes=None)
    assert [(row["clients"], row["rejected"]) for row in result.history] == [(2, 1)] * 2
    assert np.isfinite(result.vector).all()
