"""The `shoal` command in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
from click.testing import Result
from typer.testing import CliRunner

from shoal.cli.app import app

CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")

Shoal = Callable[..., Result]


@pytest.fixture
def shoal_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shoal]:
    """Runs the command in a folder of its own; JAX's settings are put back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    before = {name: jax.config.values[name] for name in CACHE}
    yield lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])
    for name, value in before.items():
        jax.config.update(name, value)
