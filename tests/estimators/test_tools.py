"""scikit-learn's tools around federated estimators: clone, Pipeline, GridSearchCV, pickles, frames."""

from __future__ import annotations

import pickle

import numpy as np
import pandas
import polars
import pytest
import sklearn
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

import shoal
from shoal import FederatedClassifier, FederatedRegressor, FederatedStandardScaler


@pytest.fixture
def table(random):
    """Features on different scales with labels that follow from them, of four hospitals."""
    x = random.normal(size=(160, 4))
    y = (x @ [2.0, -1.0, 1.0, 0.0] > 0).astype(int)
    return x * [1, 10, 100, 1000], y, np.repeat(["a", "b", "c", "d"], [40, 25, 60, 35])


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def asking():
    """A scaler and a classifier that both ask for groups."""
    return make_pipeline(
        FederatedStandardScaler().set_fit_request(groups=True),
        FederatedClassifier(SGDClassifier(loss="log_loss", alpha=0.01), random_state=0).set_fit_request(groups=True),
    )


@pytest.mark.parametrize("kind", [FederatedClassifier, FederatedRegressor])
def test_clones_have_equal_parameters_and_nothing_learned(kind):
    chain = shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Mean()
    mine = kind(aggregation=chain, server_optimizer=shoal.adam(0.1), cohort=shoal.Poisson(0.5), rounds=3)
    copy = clone(mine)
    assert copy.get_params() == mine.get_params()
    assert not [name for name in vars(copy) if name.endswith("_")]


def test_parameters_of_the_estimator_inside_are_set_by_name():
    mine = FederatedClassifier(SGDClassifier()).set_params(estimator__alpha=0.5, rounds=2)
    assert (mine.estimator.alpha, mine.rounds) == (0.5, 2)
    assert mine.get_params()["estimator__alpha"] == 0.5


@pytest.mark.parametrize("estimator", [None, MLPClassifier((4,))], ids=str)
def test_a_pickle_predicts_the_same(table, estimator):
    x, y, hospital = table
    mine = FederatedClassifier(estimator, server_optimizer=shoal.adam(0.1), rounds=2).fit(x, y, groups=hospital)
    again = pickle.loads(pickle.dumps(mine))
    assert np.array_equal(again.predict(x), mine.predict(x))
    assert np.array_equal(again.result_.vector, mine.result_.vector)
    assert again.history_ == mine.history_


def test_a_pipeline_without_routing_takes_groups_by_step(table):
    x, y, hospital = table
    steps = make_pipeline(FederatedStandardScaler(), FederatedClassifier(random_state=0))
    steps.fit(x, y, federatedstandardscaler__groups=hospital, federatedclassifier__groups=hospital)
    assert steps.score(x, y) > 0.9
    assert steps[-1].history_.column("clients") == [4] * 20


def test_a_pipeline_with_routing_gives_groups_to_each_step_that_asks(table, routing):
    x, y, hospital = table
    steps = asking().fit(x, y, groups=hospital)
    scale = FederatedStandardScaler().fit(x, groups=hospital)
    by_hand = clone(steps[-1]).fit(scale.transform(x), y, groups=hospital)
    assert np.array_equal(steps[-1].result_.vector, by_hand.result_.vector)
    assert np.array_equal(steps.predict_proba(x), by_hand.predict_proba(scale.transform(x)))


def test_a_grid_search_over_clients_finds_the_setting_that_learns(table, routing):
    x, y, hospital = table
    grid = {"federatedclassifier__estimator__alpha": [1e-3, 1e3], "federatedclassifier__rounds": [1, 5]}
    search = GridSearchCV(asking(), grid, cv=GroupKFold(2)).fit(x, y, groups=hospital)
    assert search.best_params_["federatedclassifier__estimator__alpha"] == 1e-3
    assert search.best_score_ > 0.8
    assert search.best_estimator_[-1].history_.column("clients")[0] == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_grid_search_without_routing_keeps_groups_from_the_fit_and_the_fit_says_so(table):
    x, y, hospital = table
    search = GridSearchCV(FederatedClassifier(), {"rounds": [1]}, cv=GroupKFold(2))
    with pytest.warns(UserWarning, match=r"fit got no groups.*set_fit_request\(groups=True\)"):
        search.fit(x, y, groups=hospital)


def test_cross_validation_gives_each_fit_the_groups_of_its_rows(table, routing):
    x, y, hospital = table
    for folds in (GroupKFold(4), 3):
        scores = cross_val_score(asking(), x, y, params={"groups": hospital}, cv=folds)
        assert scores.min() > 0.8


@pytest.mark.parametrize("library", [pandas, polars], ids=lambda library: library.__name__)
def test_frames_give_names_to_features(table, library):
    x, y, hospital = table
    frame = library.DataFrame(dict(zip(("age", "pulse", "dose", "height"), x.T, strict=True)))
    labels = library.Series(np.where(y, "ill", "well"))
    mine = FederatedClassifier(random_state=0).fit(frame, labels, groups=library.Series(hospital))
    assert mine.feature_names_in_.tolist() == ["age", "pulse", "dose", "height"]
    assert mine.n_features_in_ == 4
    plain = FederatedClassifier(random_state=0).fit(x, np.where(y, "ill", "well"), groups=hospital)
    assert np.array_equal(mine.predict(frame), plain.predict(x))
    with pytest.raises(ValueError, match="feature names should match"):
        mine.predict(frame[["pulse", "age", "dose", "height"]])


def test_sparse_rows_are_refused_with_the_way_out(table):
    x, y, hospital = table
    for mine in (FederatedClassifier(), FederatedStandardScaler()):
        with pytest.raises(TypeError, match=r"dense data is required.*toarray"):
            mine.fit(csr_array(x), y, groups=hospital)
