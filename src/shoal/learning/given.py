"""What a learning process is given, in the forms that people bring, as what Shoal works on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from shoal import models
from shoal.data import Population
from shoal.errors import DataError, SettingError
from shoal.examples import Examples
from shoal.learning.keras_optimizers import from_keras_optimizer, is_keras_optimizer
from shoal.optimizers import Optimizer, check_optimizer


def model_of(model_fn: Any, loss: Any) -> Any:
    """The model that a function without arguments makes, or that was given itself.

    It is one of Shoal's, a Keras model or a torch module. SettingError for anything else.
    """
    made = model_fn if _is_model(model_fn) else _called(model_fn, "model_fn", "a model")
    if _is_of(made, "keras", "Model"):
        return models.from_keras(made, loss=loss)
    if _is_of(made, "torch", "nn.Module"):
        if loss is None:
            raise SettingError("a torch module has no loss of its own: say which, such as loss='cross_entropy'")
        return models.from_torch(made, loss=loss)
    if not _is_ours(made):
        raise SettingError(
            "model_fn gives a model, such as shoal.models.logistic(13), a Keras model or a torch module, not "
            f"{_article(made)}"
        )
    if loss is not None:
        raise SettingError(f"loss is for Keras models and torch modules; this {type(made).__name__} has its own")
    return made


def optimizer_of(given: Any, name: str) -> Optimizer | None:
    """The optimizer that a function without arguments makes, or that was given itself; None stays None.

    SettingError for anything but an optimizer of Shoal or of Keras; UnsupportedError for one of Keras without a twin.
    """
    if given is None:
        return None
    made = given
    if not isinstance(given, Optimizer) and not is_keras_optimizer(given):
        made = _called(given, name, "an optimizer") if callable(given) else given
    if is_keras_optimizer(made):
        return from_keras_optimizer(made)
    check_optimizer(made, name)
    return made


def population_of(clients: Any) -> Population:
    """The clients of a round as a population; those without a name are called by their place, from 0.

    DataError if they are no population, list or dict of datasets, or if there is none.
    """
    if isinstance(clients, Population):
        return clients
    if isinstance(clients, Mapping):
        named = cast("Mapping[Any, Any]", clients)
    elif isinstance(clients, Sequence) and not isinstance(clients, str):
        named = {str(place): data for place, data in enumerate(cast("Sequence[Any]", clients))}
    else:
        raise DataError(
            "the clients of a round are a list of datasets, each an (x, y) pair or a dict of columns, a dict of them "
            f"by name, or a Population, not {_article(clients)}"
        )
    if not named:
        raise DataError("a round has at least one client, and the list is empty")
    return Population.from_clients({name: _rows(data) for name, data in named.items()})


def _rows(data: Any) -> Any:
    return {name: data.rows(name) for name in data.columns} if isinstance(data, Examples) else data


def _called(function: Any, name: str, what: str) -> Any:
    if not callable(function):
        raise SettingError(f"{name} is a function without arguments that gives {what}, not {_article(function)}")
    try:
        return function()
    except TypeError as error:
        raise SettingError(f"{name} is called without arguments to give {what}, and that failed: {error}") from error


def _is_model(value: Any) -> bool:
    """Whether a value is a model itself; classes of models are functions that make one."""
    return _is_ours(value) or _is_of(value, "keras", "Model") or _is_of(value, "torch", "nn.Module")


def _is_ours(value: Any) -> bool:
    return not isinstance(value, type) and hasattr(value, "measure") and hasattr(value, "accept")


def _is_of(value: Any, package: str, name: str) -> bool:
    """Whether a value is of a class of a package, which is not imported for that: nobody has one without it."""
    found: Any = sys.modules.get(package)
    for part in name.split("."):
        found = getattr(found, part, None)
    return isinstance(found, type) and isinstance(value, found)


def _article(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
