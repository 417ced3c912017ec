"""A value's description: what a plan prints, compares and hashes.

Frozen dataclasses, numbers, strings, containers, arrays and functions have one. A function is described by
its qualified name, the digest of its source and what it reads from around it, so two sites that hold
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


def _function(value: Callable[..., Any], within: tuple[Callable[..., Any], ...] = ()) -> Description:
    """A function's name, source, defaults, and what it reads from around it; once, if it calls itself."""
    name = f"{value.__module__}.{value.__qualname__}"
    if not isinstance(value, types.FunctionType) or value in within:
        return {"is": name}
    description: dict[str, Description] = {"is": name, "sha256": hashlib.sha256(_source(value).encode()).hexdigest()}
    around = inspect.getclosurevars(value)
    reads = {**around.nonlocals, **{k: v for k, v in around.globals.items() if _is_own(v, value)}}
    if reads:
        description["reads"] = {
            k: _function(v, (*within, value)) if isinstance(v, types.FunctionType) else describe(v)
            for k, v in sorted(reads.items())
        }
    if value.__defaults__:
        description["defaults"] = [describe(item) for item in value.__defaults__]
    return description


def _is_own(value: Any, function: types.FunctionType) -> bool:
    """Whether a global is part of what a function does: a number, an array, a function of the same module."""
    if isinstance(value, types.FunctionType):
        return value.__module__ == function.__module__
    return isinstance(value, None | bool | int | float | str | tuple | np.ndarray)


def _source(value: types.FunctionType) -> str:
    """The text of a function; of a lambda its own part of the line."""
    code = value.__code__
    try:
        lines, first = inspect.getsourcelines(value)
    except (OSError, TypeError):  # typed at a prompt: its compiled form is all there is
        return code.co_code.hex() + repr(code.co_consts)
    if value.__name__ != "<lambda>":
        return "".join(lines)
    spans = [span for span in code.co_positions() if None not in span and span[2:] != (0, 0)]
    begin = min((cast("int", span[0]), cast("int", span[2])) for span in spans)
    end = max((cast("int", span[1]), cast("int", span[3])) for span in spans)
    body = [line.encode() for line in lines[begin[0] - first : end[0] - first + 1]]
    body[-1] = body[-1][: end[1]]
    body[0] = body[0][begin[1] :]
    return f"{code.co_varnames[: code.co_argcount]}: {b''.join(body).decode()}"
