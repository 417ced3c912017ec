"""A study file: a Python program that defines a `plan`, and a `population` to simulate it on."""

from __future__ import annotations

import runpy
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.errors import ShoalError, StudyFileError
from shoal.plan import Plan


@dataclass(frozen=True)
class StudyFile:
    """What a study file defines."""

    plan: Plan
    population: Any
    test: Any
    every: int | None


def load(path: Path) -> StudyFile:
    """Runs a study file, not as the main program, and takes its names `plan`, `population`, `test` and `every`.

    `population` and `test` may be functions without arguments, for data that takes time to load.
    """
    if not path.is_file():
        raise StudyFileError(f"there is no file {path}")
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        names = runpy.run_path(str(path), run_name="study")
    except ShoalError as error:
        raise StudyFileError(f"{_place(path, error)}: {error}") from error
    except Exception as error:
        raise StudyFileError(f"{_place(path, error)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(names.get("plan"), Plan):
        raise StudyFileError(f"{path} defines no plan: write  plan = shoal.Plan(algorithm, rounds=...)")
    return StudyFile(names["plan"], names.get("population"), names.get("test"), names.get("every"))


def called(value: Any) -> Any:
    """A population, or what the function that makes it returns."""
    return value() if callable(value) and not hasattr(value, "columns") else value


def _place(path: Path, error: BaseException) -> str:
    """Where in the file it went wrong."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines else str(path)
