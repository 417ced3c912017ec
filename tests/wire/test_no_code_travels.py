"""Nothing in Shoal turns bytes into code: no pickle, no eval, no import by a name that came from elsewhere."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import shoal

SOURCES = sorted(Path(shoal.__file__).parent.rglob("*.py"))
PACKAGES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {("torch", "load"), ("numpy", "fromfile"), ("pd", "read_pickle"), ("keras", "load_model")}


def wrong(tree):
    """What a module does that could run code from bytes."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.partition(".")[0] in PACKAGES)
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in PACKAGES:
                yield module
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Call(func=ast.Attribute(attr=name, value=ast.Name(id=of))) if (of, name) in METHODS:
                yield f"{of}.{name}"
            case ast.Call(keywords=keywords) if any(
                keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False
                for keyword in keywords
            ):
                yield "allow_pickle"
            case ast.Constant(value=str(text)) if text in PACKAGES:
                yield text
            case _:
                continue


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "eval('1')", "exec(data)", "np.load(path, allow_pickle=True)",
        "torch.load(path)", "needed('cloudpickle', 'x')", "import marshal as m", "__import__(name)",
    ],
)  # fmt: skip
def test_the_search_finds(code):
    assert list(wrong(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["module.eval()", "np.load(path, allow_pickle=False)", "'no pickle'", "re.compile('a')"]
)
def test_the_search_passes_over(code):
    assert not list(wrong(ast.parse(code)))


def test_no_module_of_shoal_turns_bytes_into_code():
    assert len(SOURCES) > 100
    assert {str(path): found for path in SOURCES if (found := list(wrong(ast.parse(path.read_text("utf-8")))))} == {}


def imports_by_a_name_that_is_not_written_there(tree):
    """Whether a module imports what a variable says."""
    return any(
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and not isinstance(node.args[0], ast.Constant)
        for node in ast.walk(tree)
    )


def test_only_optional_packages_and_a_sites_own_loader_are_imported_by_a_name_in_a_variable():
    places = {path.name for path in SOURCES if imports_by_a_name_that_is_not_written_there(ast.parse(path.read_text()))}
    assert places == {"extras.py", "data.py"}
