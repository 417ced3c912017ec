"""scikit-learn estimators with `partial_fit` as federated models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from shoal.algorithms.model import Trained, Training
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.examples import Examples
from shoal.key import Key
from shoal.models.estimators import Counts, DiscreteBayes, Family, family_of, is_classifier
from shoal.settings import settle, whole
from shoal.vector import Array, Layout, Vector


@dataclass(frozen=True, eq=False)
class SklearnModel:
    """An estimator that learns in steps; it reads the columns `x` and `y`.

    `features` is the number of columns of `x`. A classifier needs its `classes`, all of them: a client may hold
    only some, even one. Training is the estimator's own: one `partial_fit` over the client's rows an epoch,
    with its learning rate and batch size. Where the rate depends on the count of steps `t_`, a client counts as
    if it had trained in every round before: 1 + round * epochs * its rows. Naive Bayes models are counts: they
    are summed, and one round with everyone is exactly the pooled fit. A client that holds NaN, or whose training
    runs away, is rejected and counted.

    UnsupportedError for an estimator that cannot go on from a model it is sent.

    >>> from sklearn.linear_model import SGDClassifier
    >>> SklearnModel(SGDClassifier(loss="log_loss"), features=3, classes=(0, 1)).layout.size
    4
    """

    estimator: Any
    features: int
    classes: Sequence[Any] | None = None
    x: str = field(default="x", kw_only=True)
    y: str = field(default="y", kw_only=True)

    def __post_init__(self) -> None:
        family_of(self.estimator)
        settle(self, features=whole(self.features, "a model has at least one feature", least=1))
        if self.classes is not None:
            settle(self, classes=tuple(np.asarray(self.classes).ravel().tolist()))
        if self._classifies and len(set(self.classes or ())) < 2:
            raise SettingError(
                f"{type(self.estimator).__name__} is a classifier: name all its classes, such as classes=(0, 1), "
                "because no client need hold them all"
            )
        if not self._classifies and self.classes is not None:
            raise SettingError(f"{type(self.estimator).__name__} predicts numbers and has no classes")

    @property
    def _classifies(self) -> bool:
        return is_classifier(self.estimator)

    @cached_property
    def _family(self) -> Family:
        return family_of(self.estimator)

    @cached_property
    def _worker(self) -> Any:
        """The one estimator that all clients of this process are trained in, one after another."""
        return self._prepared()

    def _prepared(self) -> Any:
        """A clone that has every attribute of a fitted estimator."""
        copy = type(self.estimator)(**self.estimator.get_params())
        labels = np.array(sorted(set(self.classes))) if self.classes is not None else np.zeros(1)
        rows = np.zeros((len(labels), self.features))
        if self.classes is None:
            copy.partial_fit(rows, labels)
        else:
            copy.partial_fit(rows, labels, classes=labels)
        return copy

    @property
    def layout(self) -> Layout:
        """The estimator's arrays; counts in float64, so that they are exact."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        arrays = self._family.arrays(self._worker)
        return Layout.of(arrays, dtype="float64" if self.additive else "float32")

    @property
    def traceable(self) -> bool:
        """False: it is Python."""
        return False

    @property
    def additive(self) -> bool:
        """Whether the model is made of counts."""
        return self._family.additive

    def accept(self, training: Training) -> None:
        """UnsupportedError for what only a model with gradients can do."""
        name = type(self.estimator).__name__
        if training.correction is not None:
            raise UnsupportedError(
                f"{type(training.correction).__name__} corrects gradients, and {name} keeps its own: use FedAvg, or "
                "a JAX model such as shoal.models.logistic"
            )
        given = [n for n in ("optimizer", "batch_size", "steps") if getattr(training, n) is not None]
        if given:
            raise UnsupportedError(
                f"{name} brings its own {', '.join(given)}: set them on the estimator, and epochs on the algorithm"
            )

    def check(self, data: Examples) -> None:
        """DataError if the rows have another width, or a label is not one of the classes."""
        rows, labels = data.rows(self.x), data.rows(self.y)
        if rows.shape[1:] != (self.features,):
            raise DataError(f"rows of {self.x!r} have shape {rows.shape[1:]}, the model takes ({self.features},)")
        if labels.ndim != 1:
            raise DataError(f"labels are one a row, and these have shape {labels.shape}: use y.ravel()")
        counts = isinstance(self._family, DiscreteBayes) and not hasattr(self.estimator, "binarize")  # as BernoulliNB
        if counts and rows.size and rows.min() < 0:
            raise DataError(f"{type(self.estimator).__name__} counts, and {self.x!r} holds negative numbers")
        if self.classes is not None:
            unknown = ~np.isin(labels, np.asarray(self.classes))
            if unknown.any():
                raise DataError(
                    f"{int(unknown.sum())} of {len(labels)} labels are not one of the classes "
                    f"{tuple(self.classes)}; the first is in row {int(np.flatnonzero(unknown)[0])}"
                )

    def init(self, key: Key) -> Vector:
        """Zeros; for a multilayer perceptron random weights."""
        return self.layout.flatten(self._family.start(self.layout, key))

    def train(self, vector: Vector, data: Examples, *, training: Training, round: Any, key: Key) -> Trained:
        """`partial_fit` from the model that was sent, once an epoch; or the client's counts."""
        x, y = data.rows(self.x).astype(np.float64, copy=False), data.rows(self.y)
        worker = self._worker
        if not len(y):
            return Trained(np.zeros_like(vector), {})
        if not data.usable:  # scikit-learn would raise, and it is one client's trouble: what is not finite is rejected
            return Trained(np.full_like(vector, np.nan), {})
        if isinstance(self._family, Counts):
            return Trained(self.layout.flatten(self._family.count(worker, x, y)), {})
        vector = np.asarray(vector)
        self._family.load(worker, self.layout.unflatten(vector), int(round) * training.epochs * len(y))
        with np.errstate(over="ignore", invalid="ignore"):  # numbers that run away are rejected, and counted
            for epoch in range(training.epochs):
                if hasattr(worker, "random_state"):
                    worker.random_state = key.split("epoch", epoch).integer()
                if not _learns(worker, x, y):
                    return Trained(np.full_like(vector, np.nan), {})
            return Trained(self.layout.flatten(self._family.arrays(worker)) - vector, {})

    def fitted(self, vector: Vector) -> Any:
        """A scikit-learn estimator that is this model: it predicts, scores, and can be saved.

        >>> from sklearn.naive_bayes import GaussianNB
        >>> model = SklearnModel(GaussianNB(), features=2, classes=(0, 1))
        >>> model.fitted(model.init(Key.from_seed(0))).n_features_in_
        2
        """
        estimator = self._prepared()
        self._family.load(estimator, self.layout.unflatten(np.asarray(vector)), 0)
        return estimator

    def outputs(self, vector: Vector, x: Array) -> np.ndarray[Any, Any]:
        """Scores by `decision_function`, else probabilities, else predictions."""
        estimator = self.fitted(vector)
        for name in ("decision_function", "predict_proba", "predict"):
            if hasattr(estimator, name):
                return np.asarray(getattr(estimator, name)(np.asarray(x)))
        raise UnsupportedError(f"{type(self.estimator).__name__} does not predict")

    def predict(self, vector: Vector, x: Array) -> np.ndarray[Any, Any]:
        """The label, or the number, of every row."""
        return np.asarray(self.fitted(vector).predict(np.asarray(x)))

    def measure(self, vector: Vector, columns: Mapping[str, Array]) -> Mapping[str, Float[Array, " rows"]]:
        """Accuracy, and the log loss where there are probabilities; for numbers half the squared error."""
        x, y = np.asarray(columns[self.x]), np.asarray(columns[self.y])
        estimator = self.fitted(vector)
        if self.classes is None:
            error = estimator.predict(x) - y
            return {"loss": 0.5 * np.square(error), "absolute error": np.abs(error)}
        metrics = {"accuracy": (estimator.predict(x) == y).astype(np.float32)}
        if hasattr(estimator, "predict_proba"):
            chances = estimator.predict_proba(x)[np.arange(len(y)), np.searchsorted(estimator.classes_, y)]
            metrics = {"loss": -np.log(np.maximum(chances, 1e-12)), **metrics}
        return metrics


def _learns(worker: Any, x: Any, y: Any) -> bool:
    """Trains for an epoch; False if the numbers run away, of which linear models and perceptrons make an error."""
    try:
        worker.partial_fit(x, y)
    except ValueError as error:
        if "overflow" in str(error) or "non-finite" in str(error):
            return False
        raise
    return True
