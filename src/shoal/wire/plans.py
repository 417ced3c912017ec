"""Plans as bytes, and plans from bytes: made of Shoal's own parts and of nothing else.

What travels is the plan's description, whose SHA-256 is the plan's digest. It names classes, and only those listed
here are made from it: their constructors check what they are given, nothing is imported by a name that came, and no
code comes. The plan that was made must have the digest of the bytes, so the site runs what it approved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from typing import Any, cast

from shoal import models
from shoal.aggregation import (
    Aggregation,
    Collect,
    DiscreteGaussian,
    Gaussian,
    Mean,
    Over,
    PlainSum,
    SecureSum,
    Skellam,
    Total,
)
from shoal.algorithms import FedAvg, FedEval, FedProx
from shoal.algorithms.evaluation import VectorElsewhere
from shoal.analytics import CategoryCounts, MeanAndVariance, PresentMean
from shoal.cells import Column
from shoal.cohort import Everyone, Fixed, Fraction, Poisson
from shoal.errors import MissingExtraError, ShoalError, UnsupportedError
from shoal.extras import needed
from shoal.models.gpt import Gpt
from shoal.models.jax import JaxModel
from shoal.models.losses import BinaryCrossEntropy, CrossEntropy, MaskedCrossEntropy, SquaredError
from shoal.models.lstm import LstmLanguage
from shoal.models.zoo import Linear, McMahanCnn, Perceptron
from shoal.optimizers import Optimizer
from shoal.plan import Plan
from shoal.privacy.releases import LOCAL
from shoal.robust import Median
from shoal.schedules import Schedule
from shoal.schema import Schema
from shoal.steps import AdaptiveClip, Clip, NoiseShare, Quantize, Remember, Rotate, Round, TopK, Weigh
from shoal.wire.messages import PLAN_BYTES

_PARTS: dict[str, tuple[type[Any], ...]] = {
    "algorithm": (FedAvg, FedProx, FedEval, MeanAndVariance, PresentMean, CategoryCounts),
    "cohort": (Everyone, Fixed, Fraction, Poisson),
    "model": (JaxModel,),
    "network": (Linear, Perceptron, McMahanCnn, LstmLanguage, Gpt),
    "loss": (CrossEntropy, MaskedCrossEntropy, BinaryCrossEntropy, SquaredError),
    "aggregation": (Aggregation,),
    "steps": (Clip, AdaptiveClip, Weigh, Quantize, Round, Rotate, TopK, Remember, NoiseShare, *LOCAL),
    "step": (Round, TopK),
    "meeting": (PlainSum, SecureSum, Collect),
    "finish": (Mean, Total, Gaussian, DiscreteGaussian, Skellam, Over, Median),
    "client_optimizer": (Optimizer,),
    "server_optimizer": (Optimizer,),
    "arguments": (Schedule,),
    "data": (Schema,),
    "x": (Column,),
    "y": (Column,),
    "also": (Column,),
}
"""By field, the classes that may stand there."""

_ESTIMATORS = {
    "SGDClassifier": "sklearn.linear_model",
    "SGDRegressor": "sklearn.linear_model",
    "Perceptron": "sklearn.linear_model",
    "MLPClassifier": "sklearn.neural_network",
    "MLPRegressor": "sklearn.neural_network",
    "GaussianNB": "sklearn.naive_bayes",
    "MultinomialNB": "sklearn.naive_bayes",
    "BernoulliNB": "sklearn.naive_bayes",
    "ComplementNB": "sklearn.naive_bayes",
}
"""The estimators of scikit-learn that may stand in a `SklearnModel`, and where they are exported."""

_OPTIMIZERS = frozenset({
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "fromage",
    "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "optimistic_adam_v2", "optimistic_gradient_descent", "radam",
    "rmsprop", "rprop", "sgd", "sign_sgd", "signum", "sm3", "yogi",
})  # fmt: skip
_SCHEDULES = frozenset({"cosine_decay_schedule", "linear_schedule", "exponential_decay", "piecewise_constant_schedule"})

_MOST_LAYERS = 256
_MOST_NUMBERS = 1 << 27
_MOST_THREADS = 64


def plan_bytes(plan: Plan) -> bytes:
    """A plan's description as JSON; its SHA-256 is the plan's digest.

    UnsupportedError if it is too long to be sent, PlanError if the plan has no description.

    >>> from shoal import FedAvg, models
    >>> plan = Plan(FedAvg(models.logistic(3)), rounds=2)
    >>> rebuilt(plan_bytes(plan)) == plan
    True
    """
    data = json.dumps(plan.describe(), sort_keys=True).encode()
    if len(data) > PLAN_BYTES:
        raise UnsupportedError(f"this plan's description has {len(data):,} bytes, and at most {PLAN_BYTES:,} are sent")
    return data


def rebuilt(data: bytes) -> Plan:
    """The plan that a description is of, made again; its digest is the SHA-256 of the bytes.

    UnsupportedError if it has a part that is not Shoal's own or an estimator of scikit-learn, or cannot be: then the
    study file is needed. MissingExtraError if an optional package is.
    """
    if len(data) > PLAN_BYTES:
        raise UnsupportedError(f"a plan's description has at most {PLAN_BYTES:,} bytes, not {len(data):,}")
    try:
        plan = _plan(json.loads(data, parse_constant=_refuse_constant))
        digest = plan.digest()
    except (UnsupportedError, MissingExtraError):
        raise
    except ShoalError as error:
        raise UnsupportedError(f"this is not the description of a plan that can be: {str(error)[:300]}") from None
    except Exception as error:  # constructors meet values here that no program of ours would write
        raise UnsupportedError(f"this is not the description of a plan that can be: {type(error).__name__}") from None
    if digest != hashlib.sha256(data).hexdigest():
        raise UnsupportedError(
            "the plan that this description makes here has another digest: Shoal or scikit-learn may be of another "
            "version at this site. Install the version that the study was made with, or give its study file with "
            "--study"
        )
    return plan


def _plan(described: Any) -> Plan:
    if not isinstance(described, dict):
        raise UnsupportedError("the description of a plan is a JSON object")
    about = cast("dict[str, Any]", described)
    names = ("algorithm", "rounds", "cohort", "min_clients", *(("data",) if "data" in about else ()))
    given = {name: _made(about[name], name) for name in names}
    return Plan(given.pop("algorithm"), **given)


def _made(described: Any, field: str) -> Any:
    """The value that a description in some field is of."""
    match described:
        case {"is": name, **about}:
            return _part(str(name), cast("dict[str, Any]", about), field)
        case dict():
            return {name: _made(item, field) for name, item in cast("dict[str, Any]", described).items()}
        case list():
            return tuple(_made(item, field) for item in cast("list[Any]", described))
        case "inf" | "-inf" | "nan":  # a float's description or a text's: nobody can tell
            raise _unsupported(f"{field}={described}")
        case _:
            return described


def _part(name: str, about: Mapping[str, Any], field: str) -> Any:
    """A part by its name, of those that may stand in a field."""
    given = {key: _made(item, key) for key, item in about.items()}
    if field == "model" and name == "shoal.SklearnModel":
        return _sklearn_model(given)
    if field == "estimator":
        return _estimator(name, given)
    if (field, name) == ("vector", "array") and given.keys() == {"shape", "dtype", "sha256"}:
        return VectorElsewhere(**given)
    kind = next((kind for kind in _PARTS.get(field, ()) if name == f"shoal.{kind.__qualname__}"), None)
    if kind is None or not given.keys() <= {f.name for f in fields(kind) if f.init}:
        raise _unsupported(name)
    _check(kind, given)
    return kind(**given)


def _check(kind: type[Any], given: Mapping[str, Any]) -> None:
    """UnsupportedError for settings that a constructor would take, and that are none of a study's."""
    if (kind is Optimizer and given["name"] not in _OPTIMIZERS) or (
        kind is Schedule and given["name"] not in _SCHEDULES
    ):
        raise _unsupported(str(given["name"]))
    layers = len(given["widths"]) if kind is Perceptron else given.get("layers", 1)
    if layers > _MOST_LAYERS:
        raise _unsupported(f"a network of {layers} layers")
    if kind is CategoryCounts and not all(isinstance(codes, tuple) for _, codes in given["features"]):
        raise _unsupported("categories that are not listed")  # a number would be counted up to


def _sklearn_model(given: dict[str, Any]) -> Any:
    """A `SklearnModel`, if arrays for it are no danger: it makes them to know its layout."""
    settings = given["estimator"].get_params()
    hidden = settings.get("hidden_layer_sizes", ())
    widths = [given["features"], *(hidden if isinstance(hidden, tuple) else (hidden,)), len(given["classes"] or (0,))]
    numbers = sum(a * b for a, b in pairwise(widths)) + widths[0] * widths[-1]
    if len(widths) > _MOST_LAYERS or not numbers <= _MOST_NUMBERS or not all(width >= 1 for width in widths):
        raise _unsupported("a model of scikit-learn that is too large to be made here")
    if not (settings.get("n_jobs") or 1) <= _MOST_THREADS:
        raise _unsupported(f"n_jobs={settings['n_jobs']}")
    return models.SklearnModel(**given)


def _estimator(name: str, given: Mapping[str, Any]) -> Any:
    """An estimator with its settings."""
    own = name.rpartition(".")[2]
    if own not in _ESTIMATORS:
        raise _unsupported(name)
    kind = getattr(needed(_ESTIMATORS[own], "sklearn"), own)
    if name != f"{kind.__module__}.{kind.__qualname__}":
        raise _unsupported(name)
    return kind(**given)


def _refuse_constant(name: str) -> Any:
    raise _unsupported(name)


def _unsupported(name: str) -> UnsupportedError:
    shown = ascii(name if len(name) <= 80 else f"{name[:77]}...")
    return UnsupportedError(
        f"this plan has parts that only its study file defines ({shown}): get the study file from whom you trust and "
        "give it with --study"
    )
