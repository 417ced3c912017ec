"""A study file: a Python program that defines a `plan`, and a `population` to simulate it on."""

from __future__ import annotations

import inspect
import runpy
import sys
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from shoal.data import Population
from shoal.errors import ShoalError, StudyFileError
from shoal.plan import Plan


@dataclass(frozen=True)
class StudyFile:
    """What a study file defines."""

    path: Path
    plan: Plan
    population: Any
    test: Any
    every: int | None
    callbacks: tuple[Any, ...]

    def data(self) -> tuple[Any, Any]:
        """The population and the test data, made now if functions make them; StudyFileError if they are neither."""
        if self.population is None:
            raise StudyFileError(
                f"{self.path} defines no population: write  population = shoal.Population.from_arrays(...)"
            )
        population, test = (_made(self.path, value) for value in (self.population, self.test))
        if not isinstance(population, Population | Mapping):
            raise StudyFileError(f"{self.path}: population is a {type(population).__name__}, not a Population")
        if test is not None and not isinstance(test, Population) and not callable(test):
            raise StudyFileError(
                f"{self.path}: test is a {type(test).__name__}, not a Population or a function of the run's state"
            )
        return population, test


def load(path: Path) -> StudyFile:
    """Runs a study file, not as the main program, and takes its names.

    These are `plan`, `population`, `test`, `every` and `callbacks`; all but the plan may be left out.

    `population` and `test` may be functions without arguments, for data that takes time to load.
    """
    if not path.is_file():
        raise StudyFileError(f"there is no file {path}")
    with _beside(path):
        names = runpy.run_path(str(path), run_name="study")
    if not isinstance(names.get("plan"), Plan):
        raise StudyFileError(f"{path} defines no plan: write  plan = shoal.Plan(algorithm, rounds=...)")
    every = names.get("every")
    if every is not None and (not isinstance(every, int) or every < 1):
        raise StudyFileError(f"{path}: every is a number of rounds between two evaluations, not {every!r}")
    callbacks = names.get("callbacks", ())
    if not isinstance(callbacks, list | tuple):
        raise StudyFileError(f"{path}: callbacks is a list, such as [shoal.EarlyStop('test loss')], not {callbacks!r}")
    given = cast("Sequence[Any]", callbacks)
    return StudyFile(path, names["plan"], names.get("population"), names.get("test"), every, tuple(given))


@contextmanager
def _beside(path: Path) -> Generator[None]:
    """The study's folder importable, and its mistakes told as sentences."""
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        yield
    except ShoalError as error:
        raise StudyFileError(f"{_place(path, error)}: {error}") from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise StudyFileError(f"{_place(path, error)}: {type(error).__name__}: {text}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _made(path: Path, value: Any) -> Any:
    """A value, or what the function without arguments that makes it returns."""
    if not inspect.isroutine(value) or inspect.signature(value).parameters:
        return value
    with _beside(path):
        return value()


def _place(path: Path, error: BaseException) -> str:
    """Where in the file it went wrong."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename) == path:
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines else str(path)
