"""A value's description: what a plan prints, compares and hashes.

Frozen dataclasses, numbers, strings, containers, arrays and functions have one. A function is described by
its qualified name, the digest of its source and the values that it closes over, so two sites that hold
different code hold different plans. A value without a stable description is refused: a plan that cannot be
told apart from another must not be approved.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import types
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from shoal.errors import PlanError

Description = None | bool | int | float | str | list[Any] | dict[str, Any]


def describe(value: Any) -> Description:
    """The description of a value, made of what JSON can hold; PlanError if it has none.

    >>> from shoal.vector import Part
    >>> describe(Part("bias", (3,)))
    {'is': 'Part', 'name': 'bias', 'shape': [3], 'dtype': 'float32'}
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if np.isfinite(value) else repr(value)
        case np.generic():
            return describe(value.item())
        case list() | tuple():
            return [describe(item) for item in cast("list[Any]", value)]
        case Mapping():
            items = cast("Mapping[Any, Any]", value).items()
            return {str(name): describe(item) for name, item in items}
        case functools.partial():
            part = cast("functools.partial[Any]", value)
            return {"is": "partial", "of": describe(part.func), "with": [describe(part.args), describe(part.keywords)]}
        case types.FunctionType() | types.MethodType() | type() | types.BuiltinFunctionType():
            return _function(value)
        case _:
            return _object(value)


def digest(value: Any) -> str:
    """SHA-256 of a value's description, in hexadecimal.

    >>> from shoal.vector import Part
    >>> digest(Part("bias", (3,))) == digest(Part("bias", (3,))) != digest(Part("bias", (4,)))
    True
    """
    return hashlib.sha256(json.dumps(describe(value), sort_keys=True).encode()).hexdigest()


def _object(value: Any) -> Description:
    if hasattr(value, "describe"):
        return value.describe()
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if f.repr]
        return {"is": type(value).__name__, **{f.name: describe(getattr(value, f.name)) for f in fields}}
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return {
            "is": "array", "shape": list(array.shape), "dtype": str(array.dtype),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }  # fmt: skip
    if hasattr(value, "get_params"):  # a scikit-learn estimator
        return {"is": type(value).__name__, **{k: describe(v) for k, v in sorted(value.get_params().items())}}
    if " at 0x" in (text := repr(value)):
        raise PlanError(
            f"a {type(value).__name__} cannot stand in a plan: it has no stable description. "
            "Use a frozen dataclass, or a function made of plain values"
        )
    return text


def _function(value: Callable[..., Any]) -> Description:
    name = f"{value.__module__}.{value.__qualname__}"
    if not isinstance(value, types.FunctionType):
        return {"is": name}
    try:
        text = inspect.getsource(value)
    except (OSError, TypeError):  # typed at a prompt: its compiled form is all there is
        text = value.__code__.co_code.hex() + repr(value.__code__.co_consts)
    closed = inspect.getclosurevars(value).nonlocals
    own = value.__defaults__ or ()
    description: dict[str, Description] = {"is": name, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    if closed:
        description["closes over"] = {k: describe(v) for k, v in sorted(closed.items())}
    if own:
        description["defaults"] = [describe(item) for item in own]
    return description
