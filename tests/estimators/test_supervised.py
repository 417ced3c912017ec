"""The classifier and the regressor beside scikit-learn on pooled rows, `simulate`, and plain averages."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor

import shoal
from shoal import FederatedClassifier, FederatedRegressor
from shoal.errors import DataError, DivergedError, SettingError, UnsupportedError
from shoal.models import SklearnModel
from tests.conftest import classification, regression

STEADY = {"learning_rate": "constant", "eta0": 0.05, "shuffle": False}
WORDS = np.array(["mild", "severe", "well"])


def rows(population):
    """All rows, their labels, and whose they are."""
    owners = np.repeat(population.names, population.counts)
    return population.columns["x"], population.columns["y"], owners


@pytest.fixture
def patients():
    """Rows, text labels of three classes, and a hospital each."""
    x, y, owners = rows(classification(sizes=(40, 25, 60), classes=3))
    return x, WORDS[y], owners


@pytest.mark.parametrize("estimator", [GaussianNB(), MultinomialNB(), BernoulliNB(), ComplementNB()], ids=str)
def test_naive_bayes_of_all_clients_is_the_pooled_fit(estimator, random):
    x, y = random.poisson(3, size=(120, 5)).astype(float), WORDS[random.integers(0, 3, 120)]
    mine = FederatedClassifier(estimator).fit(x, y, groups=random.integers(0, 7, 120))
    pooled = type(estimator)().fit(x, y)
    assert len(mine.history_) == 1
    assert np.array_equal(mine.predict(x), pooled.predict(x))
    np.testing.assert_allclose(mine.predict_proba(x), pooled.predict_proba(x), rtol=1e-6, atol=1e-9)


def test_one_client_and_one_round_is_partial_fit(patients):
    x, y, _ = patients
    mine = FederatedClassifier(SGDClassifier(**STEADY), rounds=1).fit(x, y, groups=np.zeros(len(y)))
    own = SGDClassifier(**STEADY).partial_fit(x.astype(float), y, classes=WORDS)
    np.testing.assert_allclose(mine.estimator_.coef_, own.coef_, rtol=1e-6)
    np.testing.assert_allclose(mine.estimator_.intercept_, own.intercept_, rtol=1e-6)


def test_one_round_is_the_mean_of_the_clients_own_fits_by_their_rows():
    x, y, owners = rows(regression(sizes=(30, 12, 45)))
    mine = FederatedRegressor(SGDRegressor(**STEADY), rounds=1).fit(x, y, groups=owners)
    own = [SGDRegressor(**STEADY).partial_fit(x[owners == name].astype(float), y[owners == name])
           for name in np.unique(owners)]  # fmt: skip
    mean = np.average([o.coef_ for o in own], axis=0, weights=[30, 12, 45])
    np.testing.assert_allclose(mine.estimator_.coef_, mean, rtol=1e-5)


def test_parameters_are_those_of_the_plan(patients):
    x, y, owners = patients
    population = shoal.Population.from_arrays(x, np.searchsorted(WORDS, y), groups=owners)
    chain, server = shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Mean(), shoal.sgd(0.5, momentum=0.9)
    model = SklearnModel(SGDClassifier(alpha=0.01), features=4, classes=range(3))
    algorithm = shoal.FedAvg(model, epochs=2, aggregation=chain, server_optimizer=server)
    result = shoal.simulate(shoal.Plan(algorithm, rounds=3, cohort=2), population, seed=7)
    mine = FederatedClassifier(
        SGDClassifier(alpha=0.01), rounds=3, epochs=2, cohort=2, aggregation=chain, server_optimizer=server,
        random_state=7,
    ).fit(x, y, groups=owners)  # fmt: skip
    assert np.array_equal(mine.result_.vector, result.vector)
    assert mine.result_.plan.digest() == result.plan.digest()
    assert [row["clients"] for row in mine.history_] == [2, 2, 2]


@pytest.mark.parametrize("labels", [WORDS, WORDS.astype(object), np.array([5, 9, -2], np.int16)], ids=lambda v: v.dtype)
@pytest.mark.parametrize(
    "estimator", [None, MLPClassifier((4,), learning_rate_init=0.1), GaussianNB(), Perceptron()], ids=str
)
def test_labels_come_back_as_they_went_in(labels, estimator):
    x, y, owners = rows(classification(sizes=(40, 25, 60), classes=3))
    mine = FederatedClassifier(estimator, random_state=0).fit(x, labels[y], groups=owners)
    assert mine.classes_.dtype == mine.predict(x).dtype == labels.dtype
    assert mine.classes_.tolist() == sorted(labels.tolist()) == mine.estimator_.classes_.tolist()
    assert mine.score(x, labels[y]) > 0.45
    assert np.array_equal(mine.estimator_.predict(x), mine.predict(x))


def test_a_client_with_one_class_and_a_client_with_one_row_take_part():
    x, y, _ = rows(classification(sizes=(90,), classes=3))
    by_class = FederatedClassifier(random_state=0).fit(x, y, groups=y)
    by_row = FederatedClassifier(rounds=5, random_state=0).fit(x, y, groups=np.arange(90))
    for mine in (by_class, by_row):
        assert mine.score(x, y) > 0.6
        assert not any(mine.history_.column("rejected"))
    assert by_row.history_.column("clients") == [90] * 5


def test_regressors_come_near_least_squares():
    x, y, owners = rows(regression(sizes=(60, 80, 50)))
    design = np.column_stack([x, np.ones(len(x))])
    best = np.mean((design @ np.linalg.lstsq(design, y)[0] - y) ** 2)
    for estimator in (None, MLPRegressor(hidden_layer_sizes=(8,), learning_rate_init=0.02)):
        mine = FederatedRegressor(estimator, rounds=40, epochs=3, random_state=0).fit(x, y, groups=owners)
        assert np.mean((mine.predict(x) - y) ** 2) < 1.4 * best
    assert not hasattr(mine, "classes_")


def test_the_order_of_clients_among_the_rows_changes_nothing(patients, random):
    x, y, owners = patients
    order = np.argsort(random.permutation(len(y)))
    for name in np.unique(owners):  # the rows of one client keep their order
        order[np.isin(order, np.flatnonzero(owners == name))] = np.flatnonzero(owners == name)
    assert not np.array_equal(order, np.arange(len(y)))
    fits = [
        FederatedClassifier(random_state=3).fit(x[taken], y[taken], groups=owners[taken])
        for taken in (slice(None), order)
    ]
    assert np.array_equal(fits[0].result_.vector, fits[1].result_.vector)


def test_a_random_state_fixes_the_fit_and_none_leaves_it_to_numpy(patients):
    x, y, owners = patients

    def vector(random_state):
        network = MLPClassifier((4,))
        return FederatedClassifier(network, rounds=1, random_state=random_state).fit(x, y, groups=owners).result_.vector

    assert np.array_equal(vector(3), vector(3))
    assert np.array_equal(vector(np.random.RandomState(3)), vector(np.random.RandomState(3)))
    assert not np.array_equal(vector(3), vector(4))
    assert not np.array_equal(vector(None), vector(None))


def test_what_the_estimator_cannot_do_its_federated_form_cannot(patients):
    x, y, owners = patients
    hinge = FederatedClassifier(SGDClassifier(loss="hinge"))
    assert not hasattr(hinge, "predict_proba")
    assert hinge.fit(x, y, groups=owners).decision_function(x).shape == (125, 3)
    assert not hasattr(FederatedClassifier(GaussianNB()), "decision_function")
    with pytest.raises(NotFittedError):
        FederatedClassifier().predict_proba(x)


def test_fit_without_groups_warns_that_nothing_is_federated(patients):
    x, y, _ = patients
    with pytest.warns(UserWarning, match="nothing is federated: pass groups=") as caught:
        mine = FederatedClassifier(random_state=0).fit(x, y)
    assert caught[0].filename == __file__
    assert mine.history_.column("clients") == [1] * 20


class Altering(SGDClassifier):
    """Changes a parameter in __init__, so that it cannot be cloned."""

    def __init__(self, loss="log_loss"):
        super().__init__(loss=loss)
        self.loss = [loss]


@pytest.mark.parametrize(
    ("estimator", "error", "message"),
    [
        (SGDClassifier, SettingError, r"is an instance: write SGDClassifier\(\)"),
        (object(), SettingError, "one of scikit-learn's, such as .* not of type object"),
        (shoal.models.logistic(4), SettingError, "not of type JaxModel: models of shoal.models go into shoal.FedAvg"),
        (Altering(), SettingError, "Altering cannot be cloned"),
        (SGDRegressor(), SettingError, "predicts numbers: use FederatedRegressor"),
        (LogisticRegression(), UnsupportedError, r"has no partial_fit.*SGDClassifier\(loss='log_loss'\)"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_estimator_that_clients_cannot_train_is_refused_in_fit(estimator, error, message, patients):
    x, y, owners = patients
    with pytest.raises(error, match=message):
        FederatedClassifier(estimator).fit(x, y, groups=owners)


def test_a_classifier_in_a_regressor_is_refused(patients):
    x, _, owners = patients
    with pytest.raises(SettingError, match="SGDClassifier predicts classes: use FederatedClassifier"):
        FederatedRegressor(SGDClassifier()).fit(x, x[:, 0], groups=owners)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "at least one round, not 0"),
        ({"epochs": 0}, "at least one epoch, not 0"),
        ({"cohort": 4}, "a cohort of 4 is larger than the population of 3 clients"),
        ({"aggregation": "mean"}, "an aggregation goes from"),
        ({"server_optimizer": 0.1}, "server_optimizer is one of shoal's"),
        ({"estimator": GaussianNB(), "rounds": 20}, "rounds=1, not 20"),
    ],
    ids=str,
)
def test_parameters_are_stored_as_given_and_checked_in_fit(settings, message, patients):
    x, y, owners = patients
    mine = FederatedClassifier(**settings)
    assert settings.items() <= mine.get_params().items()
    with pytest.raises(SettingError, match=message):
        mine.fit(x, y, groups=owners)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["a"] * 5}, "column 'x' has 125 rows, but there are 5 group labels"),
        ({"groups": [None] * 125}, "a group label is missing"),
        ({"y": ["well"] * 125}, "one class, and a classifier tells at least two apart"),
        ({"x": np.full((125, 4), np.nan)}, "contains NaN"),
    ],
    ids=["short groups", "missing groups", "one class", "NaN"],
)
def test_data_that_does_not_fit_is_refused(change, message, patients):
    given = dict(zip(("x", "y", "groups"), patients, strict=True)) | change
    with pytest.raises(ValueError, match=message):
        FederatedClassifier().fit(given["x"], given["y"], groups=given["groups"])
    assert issubclass(DataError, ValueError)


def test_clients_whose_training_runs_away_are_told(patients):
    x, _, owners = patients
    y = x[:, 0].astype(float)
    wild = FederatedRegressor(SGDRegressor(eta0=1e200, learning_rate="constant"), rounds=2)
    with pytest.raises(DivergedError, match="no client's training ended in finite numbers: bring the features"):
        wild.fit(x, y, groups=owners)
    far = x * np.where(owners == "c1", 1e120, 1.0)[:, None]
    with pytest.warns(ConvergenceWarning, match="2 of 6 contributions were not finite"):
        tame = FederatedRegressor(rounds=2).fit(far, y, groups=owners)
    assert tame.history_.column("rejected") == [1, 1]
    assert np.isfinite(tame.estimator_.coef_).all()
