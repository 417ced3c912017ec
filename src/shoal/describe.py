"""A value's description: what a plan prints, compares and hashes.

Frozen dataclasses, numbers, strings, containers, arrays, functions and classes have one. What an installed package
(or Shoal itself) exports is described by its name. Everything else is the user's own code, and that is described by
the digest of its source and by what it reads from around it, so two sites that hold different code hold different
plans. A value without a stable description is refused: a plan that cannot be told apart from another must not be
approved.
"""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import inspect
import json
import os
import site
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from shoal.errors import PlanError

Description = None | bool | int | float | str | list[Any] | dict[str, Any]

Seen = list[Any]
"""The functions and classes described so far: what comes up again is referred to by its place."""


def describe(value: Any) -> Description:
    """The description of a value, made of what JSON can hold; PlanError if it has none.

    >>> from shoal.vector import Part
    >>> describe(Part("bias", (3,)))
    {'is': 'shoal.Part', 'name': 'bias', 'shape': [3], 'dtype': 'float32'}
    """
    return _describe(value, [])


def digest(value: Any) -> str:
    """SHA-256 of a value's description, in hexadecimal.

    >>> from shoal.vector import Part
    >>> digest(Part("bias", (3,))) == digest(Part("bias", (3,))) != digest(Part("bias", (4,)))
    True
    """
    return hashlib.sha256(_text(describe(value)).encode()).hexdigest()


def _text(description: Description) -> str:
    return json.dumps(description, sort_keys=True)


def _describe(value: Any, seen: Seen) -> Description:
    match value:
        case enum.Enum():
            return {**_described(type(value), seen), "member": value.name}
        case None | bool() | int() | str():
            return value
        case float():
            return value if np.isfinite(value) else repr(value)
        case bytes():
            return {"is": "bytes", "sha256": hashlib.sha256(value).hexdigest()}
        case np.generic():
            return _describe(value.item(), seen)
        case list() | tuple() | set() | frozenset() | Mapping():
            return _container(value, seen)
        case functools.partial() | functools.partialmethod():
            part = cast("functools.partial[Any]", value)
            bound = [_describe(given, seen) for given in (part.args, part.keywords)]
            return {"is": "partial", "of": _describe(part.func, seen), "with": bound}
        case types.MethodType():
            return {"is": "method", "of": _describe(value.__self__, seen), "does": _described(value.__func__, seen)}
        case types.FunctionType() | types.BuiltinFunctionType() | type():
            return _described(value, seen)
        case _:
            return _object(value, seen)


def _container(value: Any, seen: Seen) -> Description:
    if isinstance(value, Mapping):
        entries = cast("Mapping[Any, Any]", value)
        if all(isinstance(name, str) for name in entries):
            return {name: _describe(entries[name], seen) for name in sorted(entries)}
        pairs = [_text([_describe(name, [*seen]), _describe(item, [*seen])]) for name, item in entries.items()]
        return {"is": "mapping", "of": cast("list[Any]", sorted(pairs))}
    if isinstance(value, set | frozenset):
        items = [_text(_describe(item, [*seen])) for item in cast("set[Any]", value)]
        return {"is": "set", "of": cast("list[Any]", sorted(items))}
    items = [_describe(item, seen) for item in cast("list[Any]", value)]
    return {**_described(type(value), seen), "of": items} if hasattr(value, "_fields") else items


def _object(value: Any, seen: Seen) -> Description:
    kind = cast("type[Any]", type(value))
    ours = kind.__module__.partition(".")[0] == "shoal"
    if ours and hasattr(value, "describe"):
        return value.describe()
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.repr or not ours}
        return {**_described(kind, seen), **{name: _describe(item, seen) for name, item in fields.items()}}
    if hasattr(value, "__array__"):
        return _array(value, seen)
    if hasattr(value, "get_params"):  # a scikit-learn estimator
        settings = {k: _describe(v, seen) for k, v in sorted(value.get_params().items())}
        return {**_described(kind, seen), **settings}
    if callable(value) and hasattr(value, "__qualname__") and _is_exported(value):
        return {"is": _name(value)}
    if hasattr(value, "__wrapped__"):  # a function that JAX has transformed
        rules = {rule: _describe(getattr(value, rule, None), seen) for rule in ("jvp", "fwd", "bwd")}
        return {"is": _name(kind), "of": _describe(inspect.unwrap(value), seen), **rules}
    return _instance(value, kind, seen)


def _array(value: Any, seen: Seen) -> Description:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    names = getattr(value, "columns", None)  # a data frame's
    columns = {} if names is None else {"columns": _describe(list(names), seen)}
    if array.dtype.hasobject:
        return {"is": "array", "of": _describe(array.tolist(), seen), **columns}
    return {
        "is": "array", "shape": list(array.shape), "dtype": str(array.dtype),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(), **columns,
    }  # fmt: skip


def _instance(value: Any, kind: type[Any], seen: Seen) -> Description:
    """An object of some class: of the user's own by the class and what the object holds, else by its text."""
    if not _is_installed(kind) and hasattr(value, "__dict__"):
        return {**_described(kind, seen), "holds": _describe(vars(value), seen)}
    if " at 0x" in (text := repr(value)):
        raise PlanError(
            f"a {kind.__name__} cannot stand in a plan: it has no stable description. "
            "Use a frozen dataclass, or a function made of plain values"
        )
    state = {"state": _describe(dict(value.state_dict()), seen)} if hasattr(value, "state_dict") else {}
    return {"is": _name(kind), "text": text, **state}


def _described(value: Any, seen: Seen) -> dict[str, Description]:
    """A function or a class: its name, and if no package exports it what it does."""
    about: dict[str, Description] = {"is": _name(value)}
    if any(known is value for known in seen):
        return about | {"see": next(place for place, known in enumerate(seen) if known is value)}
    if _is_installed(value):
        made = isinstance(value, types.FunctionType) and value.__closure__ and not _is_exported(value)
        if made:  # by a function of a package, from what it was given
            seen.append(value)
            given = {name: item for name, item in sorted(_closed(value).items()) if type(item) is not object}
            about["from"] = {name: _describe(item, seen) for name, item in given.items()}  # a bare object says nothing
        return about
    seen.append(value)
    return about | (_class(value, seen) if isinstance(value, type) else _function(value, seen))


def _function(value: types.FunctionType, seen: Seen) -> dict[str, Description]:
    about: dict[str, Description] = {"sha256": hashlib.sha256(_source(value).encode()).hexdigest()}
    if reads := _reads(value):
        about["reads"] = {name: _read(name, item, value, seen) for name, item in sorted(reads.items())}
    if value.__defaults__ or value.__kwdefaults__:
        about["defaults"] = _describe([value.__defaults__, value.__kwdefaults__], seen)
    return about


def _class(kind: type[Any], seen: Seen) -> dict[str, Description]:
    """What a class of the user's own is made of: its bases, its functions, its other attributes."""
    parents = [base for base in (*kind.__bases__, type(kind)) if not _is_installed(base)]
    about: dict[str, Description] = {"extends": [_described(base, seen) for base in parents]} if parents else {}
    for name, item in sorted(vars(kind).items()):
        functions = list(_functions(name, item))
        if functions:
            about[name] = [_described(function, seen) for function in functions]
        elif not name.startswith(("__", "_abc")) and not inspect.isdatadescriptor(item):
            about[name] = _describe(item, seen)
    return about


def _functions(name: str, item: Any) -> Iterator[types.FunctionType]:
    """The functions written in a class under a name, without those that a decorator such as `dataclass` made."""
    if isinstance(item, functools.partialmethod):
        return
    for inner in ("__func__", "fget", "fset", "func", "method"):
        if isinstance(found := getattr(item, inner, None), types.FunctionType):
            yield found
    found = inspect.unwrap(item) if callable(item) else item
    if isinstance(found, types.FunctionType) and not (found.__code__.co_filename[0] == "<" and name in _GENERATED):
        yield found


_GENERATED = {"__init__", "__repr__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__", "__setattr__",
              "__delattr__", "__replace__"}  # fmt: skip
"""What `dataclass` writes: it follows from the fields."""


def _name(value: Any) -> str:
    module = str(value.__module__)
    if module.partition(".")[0] == "shoal":
        module = "shoal"  # the file a part of Shoal lies in is no part of its meaning
    return f"{module}.{value.__qualname__}"


def _is_exported(value: Any) -> bool:
    """Whether a name leads to this value in an installed module: then the name says what it does."""
    found: Any = sys.modules.get(str(value.__module__))
    if found is None or not _is_installed_module(found):
        return False
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value


def _is_installed(value: Any) -> bool:
    """Whether code belongs to Python, to an installed package or to Shoal."""
    if isinstance(value, types.BuiltinFunctionType):
        return True
    if isinstance(value, types.FunctionType):
        return _is_installed_file(value.__code__.co_filename)
    files = [
        item.__code__.co_filename
        for item in vars(value).values()
        if isinstance(item, types.FunctionType) and item.__code__.co_filename[0] != "<"
    ]
    if files and value.__module__ == "__main__":  # a profiler's __main__ is not the study's
        return all(map(_is_installed_file, files))
    module = sys.modules.get(str(value.__module__))
    return module is not None and _is_installed_module(module)


def _is_installed_module(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return module.__name__ != "__main__" if file is None else _is_installed_file(file)


def _is_installed_file(file: str) -> bool:
    return file.startswith(("<frozen", *_INSTALLED)) or not {"site-packages", "dist-packages"}.isdisjoint(
        file.split(os.sep)
    )


_INSTALLED = tuple(
    os.path.join(folder, "")
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        site.getusersitepackages(),
        os.path.dirname(os.path.abspath(__file__)),
    }
)


def _closed(function: types.FunctionType) -> dict[str, Any]:
    """What a function closes over."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}


def _reads(function: types.FunctionType) -> dict[str, Any]:
    """What a function reads from around it: what it closes over, globals, and what it takes from modules."""
    found: dict[str, Any] = {}
    attributes = set(_names(function.__code__, ("LOAD_ATTR", "LOAD_METHOD")))
    for name in set(_names(function.__code__, ("LOAD_GLOBAL", "LOAD_NAME"))):
        item = function.__globals__.get(name)
        if isinstance(item, types.ModuleType) and not _is_installed_module(item):
            found |= {f"{name}.{a}": vars(item)[a] for a in attributes if a in vars(item)}
        elif name in function.__globals__:  # a builtin is known by its name, which is in the source
            found[name] = item
    found |= _closed(function)
    return {name: item for name, item in found.items() if not isinstance(item, types.ModuleType)}


def _names(code: types.CodeType, operations: tuple[str, ...]) -> Iterator[str]:
    """The names that operations look up in code, the functions inside it included."""
    yield from (step.argval for step in dis.get_instructions(code) if step.opname in operations)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant, operations)


def _read(name: str, item: Any, function: types.FunctionType, seen: Seen) -> Description:
    try:
        return _describe(item, seen)
    except PlanError as error:
        raise PlanError(f"{function.__qualname__} reads {name}: {error}") from error


def _source(value: types.FunctionType) -> str:
    """The text of a function; of a lambda its own part of the line."""
    code = value.__code__
    if code.co_filename == "<string>":  # of eval: from Python 3.13 on the text of `python -c` goes by that name too
        return _compiled(code)
    try:
        lines, first = inspect.getsourcelines(code)
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
    constants = [_compiled(c) if isinstance(c, types.CodeType) else _constant(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _constant(constant: Any) -> str:
    return str(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)
