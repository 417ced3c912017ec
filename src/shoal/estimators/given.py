"""What `fit` is given: rows by client, an estimator to copy, a random state."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np

from shoal.data import Population
from shoal.errors import SettingError
from shoal.extras import needed

_base = needed("sklearn.base", "sklearn")

DRAWN_BELOW = 2**31 - 1
"""Seeds that are drawn from a random state are below this."""


def clients(x: Any, y: Any = None, *, groups: Any) -> Population:
    """The population of the groups; without groups, after a warning, one client with all rows.

    A warning and no error, because scikit-learn's tools call `fit` without groups; and no silence, because that
    is also what happens when groups are passed to a Pipeline or a GridSearchCV that does not pass them on.
    """
    if groups is None:
        warnings.warn(
            "fit got no groups, so all rows are one client's and nothing is federated: pass groups=, a label a row "
            "(through a Pipeline or GridSearchCV: set_fit_request(groups=True) with metadata routing)",
            UserWarning,
            stacklevel=3,
        )
        groups = np.zeros(len(x), np.int64)
    return Population.from_arrays(x, y, groups=groups)


def own_copy(estimator: Any) -> Any:
    """An unfitted copy; SettingError if this is no estimator, or one that cannot be cloned."""
    if isinstance(estimator, type):
        raise SettingError(f"an estimator is an instance: write {estimator.__name__}() with its settings")
    name = type(estimator).__name__
    if not isinstance(estimator, _base.BaseEstimator):
        raise SettingError(
            f"an estimator is one of scikit-learn's, such as SGDClassifier(), not of type {name}: models of "
            "shoal.models go into shoal.FedAvg and shoal.simulate"
        )
    try:
        return _base.clone(estimator)
    except (RuntimeError, TypeError) as error:
        raise SettingError(
            f"{name} cannot be cloned, and every fit begins with a copy: its __init__ has to store each parameter "
            "as it is given, and nothing else"
        ) from error


def seed(random_state: Any) -> int:
    """The seed that a random state means: a whole number is itself, all else is drawn as scikit-learn draws."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(needed("sklearn.utils", "sklearn").check_random_state(random_state).randint(DRAWN_BELOW))
