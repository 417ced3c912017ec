"""Every program in examples/ runs, says something, and needs no folder but an empty one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
STUDY = next(path for path in EXAMPLES if path.stem.endswith("study"))
SAYS = {
    "hospitals_study": "Switzerland",
    "own_algorithm": "median age, in 20 rounds of two counts: 54.00",
    "private_sum": "SecureSum(threshold=200)",
    "resume": "the same model, to the bit: True",
    "sklearn_digits": "GaussianNB, one round of counts: accuracy 0.8",
}
SHOAL = str(Path(sys.executable).parent / "shoal")


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder; what it prints. Warnings are errors."""

    def run(*command):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_says(path, run, tmp_path):
    assert SAYS[path.stem] in run(sys.executable, str(path))
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_does(path):
    text = path.read_text("utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) < 60


def test_the_study_is_planned_and_simulated_by_the_command(run):
    planned = json.loads(run(SHOAL, "plan", str(STUDY), "--json"))
    done = json.loads(run(SHOAL, "simulate", str(STUDY), "--json"))
    assert done["plan"] == planned["digest"]
    assert len(done["history"]) == planned["plan"]["rounds"]
    assert done["history"][-1]["test accuracy"] > 0.75
