"""scikit-learn's own checks of estimators: as one client, and with the rows dealt out to three."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import _num_samples

from shoal import FederatedClassifier, FederatedRegressor, FederatedStandardScaler

pytestmark = pytest.mark.filterwarnings("ignore:fit got no groups")


def dealt(rows):
    """Whose rows they are, in turn."""
    return np.arange(_num_samples(rows)) % 3


class ClassifierOfThree(FederatedClassifier):
    def fit(self, X, y):  # noqa: N803
        return super().fit(X, y, groups=dealt(X))


class RegressorOfThree(FederatedRegressor):
    def fit(self, X, y):  # noqa: N803
        return super().fit(X, y, groups=dealt(X))


class ScalerOfThree(FederatedStandardScaler):
    def fit(self, X, y=None):  # noqa: N803
        return super().fit(X, groups=dealt(X))


def not_applying(estimator):
    """The checks that do not apply, with the reason of each; all others pass."""
    if isinstance(getattr(estimator, "estimator", None), MultinomialNB):
        return {"check_classifiers_train": "counts do not describe its data: scikit-learn's own has the poor_score tag"}
    return {}


@parametrize_with_checks(
    [
        FederatedClassifier(),
        FederatedClassifier(GaussianNB()),
        FederatedRegressor(),
        FederatedStandardScaler(),
        ClassifierOfThree(rounds=10),
        ClassifierOfThree(GaussianNB()),
        ClassifierOfThree(MultinomialNB()),
        ClassifierOfThree(MLPClassifier((5,), learning_rate_init=0.1), rounds=5),
        RegressorOfThree(rounds=10),
        RegressorOfThree(MLPRegressor(hidden_layer_sizes=(5,), learning_rate_init=0.1), rounds=5),
        ScalerOfThree(),
    ],
    expected_failed_checks=not_applying,
)
def test_the_checks_of_scikit_learn_hold(estimator, check):
    check(estimator)
