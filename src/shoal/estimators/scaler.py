"""FederatedStandardScaler: standardisation by two rounds of federated statistics."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from shoal.analytics import MeanAndVariance, Statistics
from shoal.data import Population
from shoal.estimators.given import clients
from shoal.extras import needed
from shoal.plan import Plan
from shoal.simulation import simulate

_base = needed("sklearn.base", "sklearn")
_validation = needed("sklearn.utils.validation", "sklearn")

FLOATS = (np.float64, np.float32)
"""The types that are kept; all others become float64."""


class FederatedStandardScaler(_base.OneToOneFeatureMixin, _base.TransformerMixin, _base.BaseEstimator):
    """Subtracts the mean of all clients' rows and divides by their deviation, feature by feature.

    Each client sends, per feature, a count, a sum and a sum of squares (`analytics.MeanAndVariance`), and once more
    for its rows less the mean of all, because squares of features far from 0, such as times, lose the deviation. The
    result is that of StandardScaler on the pooled rows up to float64 rounding; a constant feature is only centred.

    After `fit`: `mean_`, `var_` (divided by the count), `scale_`, `n_samples_seen_`, as StandardScaler has them.

    >>> x, hospital = [[1.0], [3.0], [5.0]], ["a", "a", "b"]
    >>> FederatedStandardScaler().fit(x, groups=hospital).transform([[3.0], [5.0]]).round(3).tolist()
    [[0.0], [1.225]]
    """

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> Self:
        """Learns mean and deviation from rows that are each of the client that `groups` names.

        ValueError (scikit-learn's) for rows that are not finite numbers, DataError for groups that do not fit.
        """
        rows = _validation.validate_data(self, X, dtype=FLOATS)
        population = clients(rows, groups=groups)
        about = _statistics(population).mean
        around = _statistics(population.with_column("x", population.columns["x"] - about))
        self.mean_, self.var_ = about + around.mean, around.variance
        self.n_samples_seen_ = int(around.count)
        rounding = self.n_samples_seen_ * np.finfo(np.float64).eps  # as in StandardScaler, by the same law
        constant = self.var_ <= rounding * self.var_ + np.square(rounding * self.mean_)
        self.scale_ = np.where(constant, 1.0, np.sqrt(self.var_))
        return self

    def transform(self, X: Any) -> Any:
        """Standardised rows."""
        rows = self._rows(X)
        return ((rows - self.mean_) / self.scale_).astype(rows.dtype, copy=False)

    def inverse_transform(self, X: Any) -> Any:
        """The rows that standardised ones came from."""
        rows = self._rows(X)
        return (rows * self.scale_ + self.mean_).astype(rows.dtype, copy=False)

    def _rows(self, x: Any) -> Any:
        _validation.check_is_fitted(self)
        return _validation.validate_data(self, x, dtype=FLOATS, reset=False)

    def __sklearn_tags__(self) -> Any:
        """As scikit-learn asks: float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _statistics(population: Population) -> Statistics:
    plan = Plan(MeanAndVariance(population.columns["x"].shape[1:]), rounds=1)
    return simulate(plan, population, progress="off").state
