"""Families of scikit-learn estimators: which arrays are the model, and how they are put in and taken out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.errors import SettingError, UnsupportedError
from shoal.extras import needed
from shoal.key import Key
from shoal.vector import Layout

Arrays = Mapping[str, np.ndarray[Any, Any]]

_linear = needed("sklearn.linear_model", "sklearn")
_bayes = needed("sklearn.naive_bayes", "sklearn")
_base = needed("sklearn.base", "sklearn")
_network = needed("sklearn.neural_network", "sklearn")


class Family(ABC):
    """A kind of estimator. `prepared` estimators have been fitted once, so that every attribute is there."""

    additive: bool
    """Whether the arrays are counts and sums over examples."""

    @abstractmethod
    def arrays(self, prepared: Any) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays that are the model."""

    @abstractmethod
    def load(self, prepared: Any, arrays: Arrays, seen: int) -> None:
        """Makes the estimator that model, as if it had seen so many rows, with no memory of another."""

    @abstractmethod
    def start(self, layout: Layout, key: Key) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays before the first round."""


@dataclass(frozen=True)
class Linear(Family):
    """SGDClassifier, SGDRegressor and their kin: coefficients and intercept.

    The count of steps `t_`, on which "optimal" and "invscaling" schedules depend, is no part of the vector, which
    may be clipped, compressed and noised: it follows from the round.
    """

    additive: bool = False

    def arrays(self, prepared: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of coefficients and intercept."""
        return {"coef_": prepared.coef_.copy(), "intercept_": np.atleast_1d(prepared.intercept_).copy()}

    def load(self, prepared: Any, arrays: Arrays, seen: int) -> None:
        """Writes into the estimator's own arrays, which it trains in place."""
        for name in ("coef_", "intercept_"):
            values = np.asarray(arrays[name], np.float64)
            for own in (name, f"_standard_{name.rstrip('_')}"):
                if hasattr(prepared, own):
                    setattr(prepared, own, values.reshape(np.shape(getattr(prepared, own))).copy())
        if hasattr(prepared, "t_"):
            prepared.t_ = 1.0 + seen

    def start(self, layout: Layout, key: Key) -> dict[str, np.ndarray[Any, Any]]:
        """Zeros."""
        return {part.name: np.zeros(part.shape) for part in layout.parts}


@dataclass(frozen=True)
class Perceptron(Family):
    """MLPClassifier and MLPRegressor: weights and biases of each layer.

    The optimizer's memory is not part of the model: each client begins with an empty one.
    """

    additive: bool = False

    def arrays(self, prepared: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of weights and biases."""
        layers = {"coefs_": prepared.coefs_, "intercepts_": prepared.intercepts_}
        return {f"{name}/{i}": a.copy() for name, every in layers.items() for i, a in enumerate(every)}

    def load(self, prepared: Any, arrays: Arrays, seen: int) -> None:
        """Sets weights and biases, and forgets the optimizer."""
        for name in ("coefs_", "intercepts_"):
            like = getattr(prepared, name)
            setattr(prepared, name, [np.array(arrays[f"{name}/{i}"], a.dtype) for i, a in enumerate(like)])
        vars(prepared).pop("_optimizer", None)
        prepared.t_ = 0

    def start(self, layout: Layout, key: Key) -> dict[str, np.ndarray[Any, Any]]:
        """Uniform weights and biases by layer size (Glorot and Bengio 2010), as scikit-learn draws them."""
        shapes = {part.name: part.shape for part in layout.parts}
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, shape in shapes.items():
            inputs, outputs = shapes[name.replace("intercepts_", "coefs_")]
            bound = np.sqrt(6 / (inputs + outputs))
            arrays[name] = key.split(name).generator().uniform(-bound, bound, shape)
        return arrays


class Counts(Family):
    """An estimator that is made of counts and sums: clients' are added, and one round is the pooled fit."""

    additive: bool = True

    @abstractmethod
    def count(self, prepared: Any, x: Any, y: Any) -> dict[str, np.ndarray[Any, Any]]:
        """The counts and sums of some examples."""

    def start(self, layout: Layout, key: Key) -> dict[str, np.ndarray[Any, Any]]:
        """Zeros."""
        return {part.name: np.zeros(part.shape) for part in layout.parts}


@dataclass(frozen=True)
class DiscreteBayes(Counts):
    """MultinomialNB, BernoulliNB and ComplementNB: counts of classes, and of features in each."""

    def arrays(self, prepared: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of the counts."""
        return {"class_count_": prepared.class_count_.copy(), "feature_count_": prepared.feature_count_.copy()}

    def load(self, prepared: Any, arrays: Arrays, seen: int) -> None:
        """Sets the counts, and lets the estimator derive its probabilities from a row of next to no weight."""
        prepared.class_count_ = np.array(arrays["class_count_"])
        prepared.feature_count_ = np.array(arrays["feature_count_"])
        nothing = np.zeros((1, prepared.feature_count_.shape[1]))
        prepared.partial_fit(nothing, prepared.classes_[:1], sample_weight=[np.finfo(float).tiny])

    def count(self, prepared: Any, x: Any, y: Any) -> dict[str, np.ndarray[Any, Any]]:
        """What learning the examples adds to empty counts."""
        before = {name: np.zeros_like(a) for name, a in self.arrays(prepared).items()}
        prepared.class_count_, prepared.feature_count_ = before["class_count_"], before["feature_count_"]
        prepared.partial_fit(x, y)
        return self.arrays(prepared)


@dataclass(frozen=True)
class GaussianBayes(Counts):
    """GaussianNB: counts, sums and sums of squares of every feature in each class, in float64."""

    def arrays(self, prepared: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Shapes are what matters: zeros."""
        shape = prepared.theta_.shape
        return {"count": np.zeros(shape[0]), "sum": np.zeros(shape), "square": np.zeros(shape)}

    def load(self, prepared: Any, arrays: Arrays, seen: int) -> None:
        """Means and variances from the sums, smoothed as scikit-learn does by a share of the largest variance."""
        count = np.maximum(np.asarray(arrays["count"], np.float64), 1e-300)[:, None]
        mean = arrays["sum"] / count
        total = max(float(np.sum(arrays["count"])), 1.0)
        pooled = arrays["square"].sum(0) / total - np.square(arrays["sum"].sum(0) / total)
        prepared.epsilon_ = prepared.var_smoothing * max(float(pooled.max()), 0.0)
        prepared.theta_ = mean
        prepared.var_ = np.maximum(arrays["square"] / count - np.square(mean), 0) + max(prepared.epsilon_, 1e-300)
        prepared.class_count_ = np.array(arrays["count"], np.float64)
        if prepared.priors is None:
            prepared.class_prior_ = prepared.class_count_ / total

    def count(self, prepared: Any, x: Any, y: Any) -> dict[str, np.ndarray[Any, Any]]:
        """Counts and sums by class."""
        x = np.asarray(x, np.float64)
        members = np.asarray(y)[:, None] == prepared.classes_[None]
        weights = members.T.astype(np.float64)
        return {"count": weights.sum(1), "sum": weights @ x, "square": weights @ np.square(x)}


def family_of(estimator: Any) -> Family:
    """The family of an estimator; UnsupportedError, with what to use instead, if it has none here."""
    if isinstance(estimator, type):
        raise SettingError(f"an estimator is an instance: write {estimator.__name__}() with its settings")
    name = type(estimator).__name__
    if not hasattr(estimator, "partial_fit"):
        raise UnsupportedError(
            f"{name} has no partial_fit, so a client cannot go on from the model it is sent: use an estimator that "
            "learns in steps, such as SGDClassifier(loss='log_loss') for logistic regression"
        )
    if getattr(estimator, "average", False):
        raise UnsupportedError(f"{name}(average=True) keeps two models at once: use average=False, the server averages")
    for setting, unwanted in (("early_stopping", True), ("class_weight", "balanced")):
        if getattr(estimator, setting, None) == unwanted:
            raise UnsupportedError(
                f"{name}({setting}={unwanted!r}) needs all rows at once, and a client learns in steps: leave it out"
            )
    if isinstance(estimator, _bayes.GaussianNB):
        return GaussianBayes()
    if isinstance(estimator, _bayes.MultinomialNB | _bayes.BernoulliNB | _bayes.ComplementNB):
        return DiscreteBayes()
    if isinstance(estimator, _network.MLPClassifier | _network.MLPRegressor):
        return Perceptron()
    if isinstance(estimator, _linear.SGDClassifier | _linear.SGDRegressor | _linear.Perceptron):
        return Linear()
    raise UnsupportedError(
        f"{name} is not known here: SGDClassifier, SGDRegressor, Perceptron, MLPClassifier, MLPRegressor, "
        "GaussianNB, MultinomialNB, BernoulliNB and ComplementNB are"
    )


def is_classifier(estimator: Any) -> bool:
    """Whether an estimator predicts classes."""
    return bool(_base.is_classifier(estimator))
