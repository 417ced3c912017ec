"""FederatedClassifier and FederatedRegressor: FedAvg over an estimator, with scikit-learn's fit and predict."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np

from shoal.algorithms import FedAvg
from shoal.data import Population
from shoal.errors import DataError, DivergedError, SettingError
from shoal.estimators.given import clients, own_copy, seed
from shoal.extras import needed
from shoal.models import SklearnModel
from shoal.plan import Plan
from shoal.simulation import History, simulate

_base = needed("sklearn.base", "sklearn")
_exceptions = needed("sklearn.exceptions", "sklearn")
_linear = needed("sklearn.linear_model", "sklearn")
_metaestimators = needed("sklearn.utils.metaestimators", "sklearn")
_multiclass = needed("sklearn.utils.multiclass", "sklearn")
_validation = needed("sklearn.utils.validation", "sklearn")

ROUNDS = 20
"""How many rounds are run unless said; a model made of counts takes one."""


def _offers(method: str) -> Callable[[Any], bool]:
    """A check of whether the estimator inside has a method: what it cannot do, its federated form cannot."""

    def offered(outer: Any) -> bool:
        return hasattr(outer.estimator_ if hasattr(outer, "estimator_") else outer._inner(), method)

    return offered


class Federated(_base.BaseEstimator, ABC):
    """The parameters and the training that classifier and regressor share."""

    def __init__(
        self,
        estimator: Any = None,
        *,
        rounds: Any = None,
        epochs: Any = 1,
        cohort: Any = None,
        aggregation: Any = None,
        server_optimizer: Any = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.rounds = rounds
        self.epochs = epochs
        self.cohort = cohort
        self.aggregation = aggregation
        self.server_optimizer = server_optimizer
        self.random_state = random_state

    @abstractmethod
    def _inner(self) -> Any:
        """The estimator that clients train: the one given, or the default."""

    def predict(self, X: Any) -> Any:
        """The label, or the number, of every row."""
        rows = self._rows(X)
        return self.estimator_.predict(rows)

    def _rows(self, x: Any) -> Any:
        """Rows to predict for; NotFittedError before fit, ValueError for rows of another width."""
        _validation.check_is_fitted(self)
        return _validation.validate_data(self, x, reset=False)

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks: rows that the estimator inside takes only without negative numbers."""
        tags, inner = super().__sklearn_tags__(), self._inner()
        if isinstance(inner, _base.BaseEstimator):
            tags.input_tags.positive_only = inner.__sklearn_tags__().input_tags.positive_only
        return tags

    def _train(self, population: Population, labels: Any = None) -> Self:
        """Runs the plan on clients whose `y` are numbers, or places in `labels`."""
        own = own_copy(self._inner())
        _check_kind(own, classifies=labels is not None)
        features = population.columns["x"].shape[1]
        model = SklearnModel(own, features, None if labels is None else range(len(labels)))
        algorithm = FedAvg(
            model, epochs=self.epochs, server_optimizer=self.server_optimizer, aggregation=self.aggregation
        )
        rounds = (1 if model.additive else ROUNDS) if self.rounds is None else self.rounds
        plan = Plan(algorithm, rounds=rounds, cohort=self.cohort)
        self.result_ = simulate(plan, population, seed=seed(self.random_state), progress="off")
        self.history_ = self.result_.history
        _check_rejected(self.history_)
        speaking = model if labels is None else replace(model, classes=labels.tolist())
        self.estimator_ = speaking.fitted(self.result_.vector)
        return self


def _check_kind(estimator: Any, *, classifies: bool) -> None:
    """SettingError for a regressor that should classify, and for the reverse."""
    if classifies and _base.is_regressor(estimator):
        raise SettingError(f"{type(estimator).__name__} predicts numbers: use FederatedRegressor")
    if not classifies and _base.is_classifier(estimator):
        raise SettingError(f"{type(estimator).__name__} predicts classes: use FederatedClassifier")


def _check_rejected(history: History) -> None:
    """ConvergenceWarning if training ran away at a client, and DivergedError if at every one in every round.

    Rows are finite here, so nothing else is rejected.
    """
    taken, rejected = (int(np.sum(history.column(name))) for name in ("clients", "rejected"))
    advice = "bring the features to one scale (FederatedStandardScaler) or lower the learning rate"
    if rejected and not taken:
        raise DivergedError(f"no client's training ended in finite numbers: {advice}")
    if rejected:
        warnings.warn(
            f"{rejected} of {rejected + taken} contributions were not finite and were left out: {advice}",
            _exceptions.ConvergenceWarning,
            stacklevel=4,
        )


class FederatedClassifier(_base.ClassifierMixin, Federated):
    """A classifier that clients train together by federated averaging (McMahan et al. 2017).

    `estimator` is a scikit-learn classifier that `SklearnModel` knows; None is SGDClassifier(loss="log_loss").
    `rounds` are 20 unless given; a naive Bayes model, which is counts, takes 1. `epochs`, `aggregation` and
    `server_optimizer` are those of `FedAvg`, `cohort` that of `Plan`. `random_state` decides the first model, the
    cohorts and the order of rows, in place of the estimator's own.

    After `fit`: `estimator_` is the fitted scikit-learn estimator, with the labels that were given; `classes_`,
    `n_features_in_`, `feature_names_in_`; `history_`; `result_`, whose labels are places in `classes_`.

    >>> from sklearn.linear_model import SGDClassifier
    >>> x, y, hospital = [[0.0], [1.0], [0.1], [0.9]], ["well", "ill", "well", "ill"], ["a", "a", "b", "b"]
    >>> model = FederatedClassifier(SGDClassifier(loss="log_loss"), rounds=20, random_state=0)
    >>> model.fit(x, y, groups=hospital).predict([[0.2], [0.8]]).tolist()
    ['well', 'ill']
    """

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:
        """Trains on the rows, each of the client that `groups` names; without groups, as one client.

        ValueError (scikit-learn's) for rows or labels it does not take, SettingError and UnsupportedError for
        parameters, DataError for groups that do not fit the rows or a single class.
        """
        rows, labels = _validation.validate_data(self, X, y)
        _multiclass.check_classification_targets(labels)
        if self.__sklearn_tags__().input_tags.positive_only:
            _validation.check_non_negative(rows, type(self).__name__)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError("y holds one class, and a classifier tells at least two apart: look at how y was made")
        return self._train(clients(rows, codes, groups=groups), self.classes_)

    def predict(self, X: Any) -> Any:
        """The label of every row."""
        return np.asarray(super().predict(X)).astype(self.classes_.dtype, copy=False)

    @_metaestimators.available_if(_offers("predict_proba"))
    def predict_proba(self, X: Any) -> Any:
        """The probability of every class (columns, in the order of `classes_`) for every row."""
        rows = self._rows(X)
        return self.estimator_.predict_proba(rows)

    @_metaestimators.available_if(_offers("decision_function"))
    def decision_function(self, X: Any) -> Any:
        """The score of every row: of the second class where there are two, else of each class."""
        rows = self._rows(X)
        return self.estimator_.decision_function(rows)

    def _inner(self) -> Any:
        return _linear.SGDClassifier(loss="log_loss") if self.estimator is None else self.estimator


class FederatedRegressor(_base.RegressorMixin, Federated):
    """A regressor that clients train together by federated averaging (McMahan et al. 2017).

    `estimator` is a scikit-learn regressor that `SklearnModel` knows; None is SGDRegressor(). The other
    parameters, and what is there after `fit`, are those of `FederatedClassifier`, without classes.

    >>> x, y, site = [[0.0], [1.0], [2.0], [3.0]], [1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"]
    >>> model = FederatedRegressor(rounds=200, random_state=0).fit(x, y, groups=site)
    >>> model.predict([[10.0]]).round().tolist()
    [21.0]
    """

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> Self:
        """Trains on the rows, each of the client that `groups` names; without groups, as one client.

        ValueError (scikit-learn's) for rows or numbers it does not take, SettingError and UnsupportedError for
        parameters, DataError for groups that do not fit the rows.
        """
        rows, numbers = _validation.validate_data(self, X, y, y_numeric=True)
        return self._train(clients(rows, numbers, groups=groups))

    def _inner(self) -> Any:
        return _linear.SGDRegressor() if self.estimator is None else self.estimator
