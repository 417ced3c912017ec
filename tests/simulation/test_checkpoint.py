"""A run that stops goes on to the same model to the bit, or says why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import SGDClassifier

import shoal
from shoal import AdaptiveClip, PlainSum, Remember, TopK, Weigh, models
from shoal.errors import CheckpointError, RejectedError
from tests.conftest import classification

LABELS = classification(sizes=(7, 3, 12, 5, 9))
ADAM = {"server_optimizer": shoal.adam(shoal.schedules.cosine(0.1, rounds=12))}
WORKS = {
    "weighted": shoal.FedAvg(models.logistic(4)),
    "adam": shoal.FedAvg(models.logistic(4), **ADAM),
    "remembered": shoal.FedAvg(
        models.logistic(4),
        aggregation=Remember(TopK(0.2)) >> AdaptiveClip(0.1) >> Weigh(20) >> PlainSum() >> shoal.Mean(),
    ),
    "sklearn": shoal.FedAvg(models.SklearnModel(SGDClassifier(), features=4, classes=(0, 1))),
}


class StopError(Exception):
    pass


def stopping(at):
    """A test that ends the run the first time that the round is reached."""
    seen = []

    def test(state):
        seen.append(state)
        if len(seen) == at:
            raise StopError
        return {"size": float(np.abs(np.asarray(state.vector)).sum())}

    return test


def whole(plan, **more):
    return shoal.simulate(plan, LABELS, test=stopping(99), every=1, seed=4, **more)


def told(result):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in result.history]


@pytest.mark.parametrize("cohort", [None, shoal.Poisson(0.5)], ids=["everyone", "poisson"])
@pytest.mark.parametrize("name", WORKS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, cohort, tmp_path):
    plan, file = shoal.Plan(WORKS[name], rounds=12, cohort=cohort), tmp_path / "run.safetensors"
    with pytest.raises(StopError):
        shoal.simulate(plan, LABELS, test=stopping(5), every=1, seed=4, checkpoint=file, save_every_s=0.0)
    resumed = whole(plan, checkpoint=file)
    uninterrupted = whole(plan)
    assert resumed.vector.tobytes() == uninterrupted.vector.tobytes()
    assert told(resumed) == told(uninterrupted)
    assert list(tmp_path.iterdir()) == [file], "nothing is left beside the checkpoint"


def test_a_finished_run_is_not_run_again(tmp_path):
    plan, file = shoal.Plan(WORKS["weighted"], rounds=3), tmp_path / "run.safetensors"
    first = whole(plan, checkpoint=file)
    again = shoal.simulate(plan, LABELS, test=stopping(1), every=1, seed=4, checkpoint=file)
    assert again.vector.tobytes() == first.vector.tobytes()
    assert told(again) == told(first)


PROGRAM = """
import sys
import numpy as np
import shoal
from tests.conftest import classification
from tests.simulation.test_checkpoint import WORKS

population = classification(sizes=(7, 3, 12, 5, 9))
plan = shoal.Plan(WORKS["remembered"], rounds=400, cohort=shoal.Poisson(0.5))
saved = sys.argv[1] if len(sys.argv) > 1 else None
tell = lambda state: print("measured", flush=True) or {}
result = shoal.simulate(plan, population, test=tell, every=1, checkpoint=saved, save_every_s=0.02)
print(len(result.history), result.vector.tobytes().hex())
"""


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """Where the program runs: its processes compile once."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return {"env": environment, "cwd": root}


@pytest.fixture(scope="module")
def uninterrupted(surroundings):
    """What the program says at the end of a run that nobody stopped."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **surroundings)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_process_that_was_killed_leaves_a_run_to_go_on_from(by, tmp_path, surroundings, uninterrupted):
    command = [sys.executable, "-c", PROGRAM]
    file = tmp_path / "run.safetensors"
    with subprocess.Popen([*command, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **surroundings) as run:
        assert run.stdout is not None
        for _ in range(20):
            run.stdout.readline()
        while not file.exists():
            time.sleep(0.005)
        run.send_signal(by)
        run.communicate(timeout=60)
    assert run.returncode != 0
    resumed = subprocess.run([*command, file], capture_output=True, text=True, check=True, **surroundings)
    *measured, end = resumed.stdout.splitlines()
    assert 0 < len(measured) < 400, "it went on, and did not begin anew"
    assert end == uninterrupted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": shoal.Plan(WORKS["weighted"], rounds=4)}, "of another plan"),
        ({"seed": 5}, "of another seed"),
        ({"population": LABELS.without("c0")}, "of another population"),
        ({"population": LABELS.with_column("x", LABELS.columns["x"] + 1)}, "of another population"),
        ({"start": np.ones(5)}, "of another start"),
        ({"runtime": "local"}, "of another runtime"),
    ],
    ids=["plan", "seed", "clients", "data", "start", "runtime"],
)
def test_a_checkpoint_of_another_run_is_refused(change, message, tmp_path):
    given = {"plan": shoal.Plan(WORKS["weighted"], rounds=3), "population": LABELS, "seed": 4}
    file = tmp_path / "run.safetensors"
    shoal.simulate(**given, checkpoint=file)
    before = file.read_bytes()
    with pytest.raises(CheckpointError, match=message):
        shoal.simulate(**{**given, **change}, checkpoint=file)
    assert file.read_bytes() == before


def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path):
    plan, file = shoal.Plan(WORKS["weighted"], rounds=3), tmp_path / "run.safetensors"
    whole(plan, checkpoint=file)
    for wrong in (b"", b"nonsense", file.read_bytes()[:-8]):
        file.write_bytes(wrong)
        with pytest.raises(CheckpointError, match="not a checkpoint that can be read"):
            whole(plan, checkpoint=file)
        assert file.read_bytes() == wrong
    save_file({"0": np.zeros(3)}, file)
    with pytest.raises(CheckpointError, match="of another format"):
        whole(plan, checkpoint=file)


def test_a_place_where_nothing_can_be_written_is_refused_before_the_run(tmp_path):
    plan = shoal.Plan(WORKS["weighted"], rounds=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="nothing can be written to"):
        shoal.simulate(plan, LABELS, test=stopping(1), checkpoint=tmp_path / "file" / "run")
    with pytest.raises(CheckpointError, match="is a folder"):
        shoal.simulate(plan, LABELS, test=stopping(1), checkpoint=tmp_path)


def test_a_run_that_stopped_at_a_rejection_keeps_its_last_save(tmp_path):
    x = LABELS.columns["x"].copy()
    x[LABELS["c1"].start] = np.nan
    plan, file = shoal.Plan(WORKS["weighted"], rounds=30, cohort=1), tmp_path / "run.safetensors"
    with pytest.raises(RejectedError):
        shoal.simulate(
            plan, LABELS.with_column("x", x), every=1, checkpoint=file, save_every_s=0.0, on_reject="stop", seed=3
        )
    goes_on = shoal.simulate(plan, LABELS.with_column("x", x), every=1, checkpoint=file, seed=3)
    assert [row["round"] for row in goes_on.history] == list(range(1, 31))
