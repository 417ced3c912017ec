"""Models on disk: named arrays in safetensors, which any program can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shoal.errors import CheckpointError, SettingError
from shoal.plan import Plan
from shoal.vector import Layout
from shoal.whole_file import check_place, write_whole

FORMAT = "shoal model 1"


def check_model_place(path: Path, plan: Plan) -> None:
    """SettingError if the plan has no model, CheckpointError if another file is there; OSError as `check_place`."""
    if getattr(plan.algorithm, "model", None) is None:
        raise SettingError(f"{type(plan.algorithm).__name__} trains no model that could be saved")
    check_place(path)
    if path.exists() and not _metadata(path).get("format", "").startswith("shoal model"):
        raise CheckpointError(f"{path} is there and was not saved as a model by Shoal: name another file")


def write_model(path: Path, vector: Any, *, plan: Plan, round: int) -> None:
    """Writes a plan's model, whole or not at all; OSError if that cannot be.

    The arrays have the model's names, shapes and dtypes; the header has the format, the plan's digest, the
    round and the layout's digest.
    """
    algorithm: Any = plan.algorithm
    layout: Layout = algorithm.model.layout
    metadata = {"format": FORMAT, "plan": plan.digest(), "round": str(round), "layout": layout.digest()}
    write_whole(path, save(layout.unflatten(np.asarray(vector)), metadata))


def load_vector(path: str | Path, model: Any) -> np.ndarray[Any, Any]:
    """The vector of a model that was saved by `Result.save` or `SaveModel`, or by anyone under the same names.

    CheckpointError if the file cannot be read, or its arrays are not those of the model.

    >>> from shoal import models
    >>> load_vector("nowhere.safetensors", models.logistic(3))
    Traceback (most recent call last):
        ...
    shoal.errors.CheckpointError: nowhere.safetensors is not a model that can be read: there is no such file
    """
    try:
        with safe_open(path, "numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 it is no dict
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is not a model that can be read: there is no such file") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
    if not isinstance(getattr(model, "layout", None), Layout):
        raise SettingError(f"a vector is read for a model, which knows its layout, not for a {type(model).__name__}")
    found = metadata.get("format", "")
    if found.startswith("shoal ") and found != FORMAT:
        raise CheckpointError(f"{path} is a {found}, wanted a {FORMAT}")
    _check(path, arrays, model.layout)
    return np.asarray(model.layout.flatten(arrays))


def _metadata(path: Path) -> dict[str, str]:
    """A file's header; empty if it is no safetensors file."""
    try:
        with safe_open(path, "numpy") as file:
            return file.metadata() or {}
    except SafetensorError:
        return {}


def _check(path: str | Path, arrays: dict[str, Any], layout: Layout) -> None:
    """CheckpointError that names the first part in which the arrays differ from the layout."""
    parts = {part.name: part for part in layout.parts}
    for name in arrays:
        if name not in parts:
            raise CheckpointError(f"{path} is of another model: it has {name}, and this model does not")
    for name, part in parts.items():
        if name not in arrays:
            raise CheckpointError(f"{path} is of another model: it lacks {name}, which this model has")
        wanted, found = (f"{a.dtype}{list(a.shape)}" for a in (part, arrays[name]))
        if found != wanted:
            raise CheckpointError(f"{path} is of another model: {name} is {found} there, and {wanted} in this model")
