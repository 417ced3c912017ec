"""A value's description: what a plan prints, compares and hashes.

Frozen dataclasses, numbers, strings, containers, arrays, functions and classes have one. What a package holds
that is installed (or Shoal itself) is described by its name. Everything else is the user's own code, and that
is described by the digest of its source and by what it reads from around it, so two sites that hold different
code hold different plans. A value without a stable description is refused: a plan that cannot be told apart
from another must not be approved.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from shoal.errors import PlanError

Description = None | bool | int | float | str | list[Any] | dict[str, Any]

Within = tuple[Any, ...]
"""The functions and classes that are being described: one that leads back to itself is named only."""


def describe(value: Any) -> Description:
    """The description of a value, made of what JSON can hold; PlanError if it has none.

    >>> from shoal.vector import Part
    >>> describe(Part("bias", (3,)))
    {'is': 'shoal.Part', 'name': 'bias', 'shape': [3], 'dtype': 'float32'}
    """
    return _describe(value, ())


def digest(value: Any) -> str:
    """SHA-256 of a value's description, in hexadecimal.

    >>> from shoal.vector import Part
    >>> digest(Part("bias", (3,))) == digest(Part("bias", (3,))) != digest(Part("bias", (4,)))
    True
    """
    return hashlib.sha256(json.dumps(describe(value), sort_keys=True).encode()).hexdigest()


def _describe(value: Any, within: Within) -> Description:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if np.isfinite(value) else repr(value)
        case bytes():
            return {"is": "bytes", "sha256": hashlib.sha256(value).hexdigest()}
        case np.generic():
            return _describe(value.item(), within)
        case list() | tuple():
            return [_describe(item, within) for item in cast("list[Any]", value)]
        case set() | frozenset():
            items = [json.dumps(_describe(item, within), sort_keys=True) for item in cast("set[Any]", value)]
            return {"is": "set", "of": cast("list[Any]", sorted(items))}
        case Mapping():
            entries = cast("Mapping[Any, Any]", value).items()
            return {str(name): _describe(item, within) for name, item in entries}
        case functools.partial():
            part = cast("functools.partial[Any]", value)
            bound = [_describe(given, within) for given in (part.args, part.keywords)]
            return {"is": "partial", "of": _describe(part.func, within), "with": bound}
        case types.MethodType():
            return {"is": "method", "of": _describe(value.__self__, within), "does": _described(value.__func__, within)}
        case _:
            code = inspect.unwrap(value) if callable(value) and hasattr(value, "__wrapped__") else value
            if isinstance(code, types.FunctionType | types.BuiltinFunctionType | type):
                return _described(code, within)
            return _object(value, within)


def _object(value: Any, within: Within) -> Description:
    kind = cast("type[Any]", type(value))
    if hasattr(value, "describe"):
        return value.describe()
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.repr}
        about = _described(kind, within)
        return {**about, **{name: _describe(item, (*within, kind)) for name, item in fields.items()}}
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return {
            "is": "array", "shape": list(array.shape), "dtype": str(array.dtype),
            "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
        }  # fmt: skip
    if hasattr(value, "get_params"):  # a scikit-learn estimator
        settings = {k: _describe(v, within) for k, v in sorted(value.get_params().items())}
        return {**_described(kind, within), **settings}
    if callable(value) and hasattr(value, "__qualname__") and _is_installed(value):
        return {"is": _name(value)}
    if " at 0x" in (text := repr(value)):
        raise PlanError(
            f"a {kind.__name__} cannot stand in a plan: it has no stable description. "
            "Use a frozen dataclass, or a function made of plain values"
        )
    return text


def _described(value: Any, within: Within) -> dict[str, Description]:
    """A function or a class: its name, and if it is the user's own what it does."""
    about: dict[str, Description] = {"is": _name(value)}
    if _is_installed(value) or value in within:
        return about
    within = (*within, value)
    if isinstance(value, type):
        bases = {base.__name__: _described(base, within) for base in value.__bases__ if not _is_installed(base)}
        if bases:
            about["extends"] = bases
        about["methods"] = {name: _described(method, within) for name, method in _methods(value)}
        return about
    about["sha256"] = hashlib.sha256(_source(value).encode()).hexdigest()
    if reads := _reads(value):
        about["reads"] = {name: _read(name, item, value, within) for name, item in sorted(reads.items())}
    if value.__defaults__ or value.__kwdefaults__:
        about["defaults"] = _describe([value.__defaults__, value.__kwdefaults__], within)
    return about


def _name(value: Any) -> str:
    module = str(value.__module__)
    if module.partition(".")[0] == "shoal":
        module = "shoal"  # the file a part of Shoal lies in is no part of its meaning
    return f"{module}.{value.__qualname__}"


def _is_installed(value: Any) -> bool:
    """Whether code belongs to Python, to an installed package or to Shoal: its name says what it does."""
    module = str(getattr(value, "__module__", None) or "builtins")
    if module.partition(".")[0] in _STANDARD:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and file.startswith(_INSTALLED)


_STANDARD = (sys.stdlib_module_names | {"shoal"}) - {"__main__"}
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _methods(kind: type[Any]) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions written in a class, without those that a decorator such as `dataclass` made."""
    for name, item in sorted(vars(kind).items()):
        for inner in ("__func__", "fget", "func", "method"):
            item = getattr(item, inner, item)  # noqa: PLW2901
        found = inspect.unwrap(item) if callable(item) else item
        if not isinstance(found, types.FunctionType) or _is_installed(found):
            continue
        if found.__code__.co_filename.startswith("<") and name in _GENERATED:
            continue
        yield name, found


_GENERATED = {"__init__", "__repr__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__setattr__",
              "__delattr__", "__replace__"}  # fmt: skip
"""What `dataclass` writes: it follows from the fields."""


def _reads(function: types.FunctionType) -> dict[str, Any]:
    """What a function reads from around it: closed-over values, and globals that are not modules."""
    names = set(_names(function.__code__))
    around = {name: item for name, item in function.__globals__.items() if name in names}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closed = {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}
    return {name: item for name, item in {**around, **closed}.items() if not isinstance(item, types.ModuleType)}


def _names(code: types.CodeType) -> Iterator[str]:
    """The names that code looks up, the functions inside it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _read(name: str, item: Any, function: types.FunctionType, within: Within) -> Description:
    try:
        return _describe(item, within)
    except PlanError as error:
        raise PlanError(f"{function.__qualname__} reads {name}: {error}") from error


def _source(value: types.FunctionType) -> str:
    """The text of a function; of a lambda its own part of the line."""
    code = value.__code__
    try:
        lines, first = inspect.getsourcelines(value)
    except (OSError, TypeError):  # typed at a prompt: its compiled form is all there is
        return _compiled(code)
    if value.__name__ != "<lambda>":
        return "".join(lines)
    spans = [span for span in code.co_positions() if None not in span and span[2:] != (0, 0)]
    begin = min((cast("int", span[0]), cast("int", span[2])) for span in spans)
    end = max((cast("int", span[1]), cast("int", span[3])) for span in spans)
    body = [line.encode() for line in lines[begin[0] - first : end[0] - first + 1]]
    body[-1] = body[-1][: end[1]]
    body[0] = body[0][begin[1] :]
    return f"{code.co_varnames[: code.co_argcount]}: {b''.join(body).decode()}"


def _compiled(code: types.CodeType) -> str:
    constants = [_compiled(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"
