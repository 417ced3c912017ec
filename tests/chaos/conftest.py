"""What is tried only in a soak, and a PostgreSQL that may be stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.chaos.harness import Cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `soak`, unless `-m` asks for it."""
    if "soak" in config.getoption("-m"):
        return
    long = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if not item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    """A server's folder and its sites, with the plan that a test names, or the small one."""
    with Cluster(tmp_path, getattr(request, "param", "small")) as made:
        yield made


@pytest.fixture
def database() -> Iterator[postgres.Postgres]:
    """A PostgreSQL of the test's own."""
    if postgres.binaries() is None:
        pytest.skip("needs PostgreSQL's programs: install them, as .ci/run does")
    with postgres.running() as server:
        yield server
