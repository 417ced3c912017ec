"""The examples in docstrings: every module under src/shoal, its `>>>` lines run and compared."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import shoal
from shoal.errors import MissingExtraError

MODULES = ["shoal", *sorted(found.name for found in pkgutil.walk_packages(shoal.__path__, "shoal."))]


def examples_of(name):
    finder = doctest.DocTestFinder(exclude_empty=True)
    try:
        module = importlib.import_module(name)
    except MissingExtraError as error:
        pytest.skip(f"{error}, or  make torch  in a clone, and test again")
    return [test for test in finder.find(module, name) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_modules_docstrings_hold(name):
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    for test in examples_of(name):
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_there_are_examples_in_every_part():
    having = {name.split(".")[1] for name in MODULES if "." in name and "torch" not in name and examples_of(name)}
    assert {"aggregation", "algorithms", "analytics", "data", "models", "simulation", "steps"} <= having
