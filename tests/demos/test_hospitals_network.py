"""The hospitals over a network: real processes over TLS find what a simulation finds, and end when they should."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import shoal
from shoal.cli import demo
from shoal.client.ledger import Ledger
from shoal.client.policy import Policy
from shoal.demos.deployed_report import tables as tables_of
from shoal.demos.deployed_report import verdict
from shoal.demos.hospitals_deployed import Found, read_table, simulated, study, tables, write_table
from shoal.demos.hospitals_network import Deployed, Killed, Left
from shoal.errors import SettingError
from tests.demos.test_hospitals import NAMES

SHOAL = str(Path(sys.executable).parent / "shoal")


def begun(folder):
    return subprocess.Popen(
        [SHOAL, "demo", "hospitals", "--rounds", "2000", "--folder", str(folder)],
        env={**os.environ, "COLUMNS": "120"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def processes_of(folder):
    """The ids of all processes that were given a place in the folder."""
    place = f"{folder}/".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if any(word.startswith(place) for word in words):
            found.append(int(path.parent.name))
    return found


def until_they_train(folder, process):
    """Waits until every hospital has a task of training."""
    logs = [folder / name / "agent.log" for name in NAMES]
    while not all(log.exists() and "heart-training, round 1: taken" in log.read_text() for log in logs):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_a_table_comes_back_from_its_file(tmp_path):
    for name, table in tables().items():
        write_table(tmp_path / name, table)
        back = read_table(tmp_path / name)
        assert list(back) == list(table)
        assert all(np.array_equal(np.asarray(back[column], table[column].dtype), table[column]) for column in table)


def test_the_study_finds_what_the_population_gives():
    train, test = shoal.hospitals().split_examples(0.34, seed=0)
    scale = shoal.standardizer(train)
    work = shoal.FedAvg(shoal.models.logistic(13), steps=5, batch_size="all", client_optimizer=shoal.sgd(0.1))
    result = shoal.simulate(shoal.Plan(work, rounds=3), scale.apply(train), runtime="local")
    found = study(simulated(tables()), rounds=3)
    assert found.patients == train.counts.sum()
    assert found.means == pytest.approx(scale.mean, rel=1e-12)
    assert found.deviations == pytest.approx(scale.scale, rel=1e-9)
    assert found.vector == pytest.approx(result.vector, rel=1e-5)
    assert found.measured["accuracy"] == pytest.approx(result.evaluate(scale.apply(test)).pooled["accuracy"], abs=1e-6)


def test_server_and_hospitals_find_what_a_simulation_finds_to_the_bit(tmp_path):
    done = subprocess.run(
        [SHOAL, "demo", "hospitals", "--rounds", "2", "--folder", str(tmp_path), "--json"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["equal"] is True
    assert answer["network"] == answer["simulated"]
    assert 0.5 < answer["network"]["measured"]["accuracy"] < 1
    assert [left["name"] for left in answer["left"]] == NAMES
    for left in answer["left"]:
        assert left["sound"]
        assert left["results"] == 4  # of statistics, of training twice, of evaluation
        with Ledger.existing(tmp_path / left["name"] / "home" / "ledger.db") as ledger:
            assert [entry.detail for entry in ledger.entries() if entry.kind == "verdict"] == ["counted"] * 4
        assert Policy.load(tmp_path / left["name"] / "policy.toml").minimum_cohort == len(NAMES)
        assert "patients.csv" in os.listdir(tmp_path / left["name"])
    assert len({(tmp_path / name / "home" / "key.pem").read_bytes() for name in NAMES}) == len(NAMES)
    assert not processes_of(tmp_path)


def test_with_secure_sums_a_hospital_is_killed_before_it_sends_and_the_model_is_the_simulations(tmp_path):
    done = subprocess.run(
        [SHOAL, "demo", "hospitals", "--secure", "--kill", "mask", "--rounds", "3", "--json", "--folder", tmp_path],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["equal"] is True and answer["secure"] is True
    assert answer["killed"] == {"stage": "mask", "round": 2, "hospital": NAMES[-1]}
    for name in NAMES:
        with Ledger.existing(tmp_path / name / "home" / "ledger.db") as ledger:
            entries = list(ledger.entries())
        counted = {entry.task for entry in entries if entry.detail == "counted"}
        assert len(counted) == (4 if name == NAMES[-1] else 5)  # of statistics, of training, of evaluation
        masked = [entry.detail.startswith("masked: ") for entry in entries if entry.kind == "result"]
        assert masked == [True] * (len(masked) - 1) + [False]  # the evaluation's sum is a plain one
    assert not processes_of(tmp_path)


def test_the_report_says_what_the_server_could_see():
    found = Found(488, (53.3,), (9.2,), (0.5,), {"accuracy": 0.8, "loss": 0.5})
    left = (Left("Cleveland", 303, 5, 1000, 37, 20000, sound=True),)
    said = []
    for secure in (False, True):
        printed = Console(width=100, file=io.StringIO())
        for table in tables_of(Deployed(found, found, 1.0, left, 3, secure)):
            printed.print(table)
        said.append(printed.file.getvalue())
    plain, masked = said
    assert "its change of the model" in plain and "nothing" not in plain
    assert "its change of the model" not in masked and masked.count("nothing") == 2
    killed = Deployed(found, found, 1.0, left, 3, True, Killed("confirm", 2))
    assert "was killed in round 2 before its message of the stage 'confirm' left, still counted in" in verdict(killed)
    assert "had no part in" in verdict(replace(killed, killed=Killed("share", 2)))


def test_ctrl_c_ends_every_process(tmp_path):
    with begun(tmp_path) as process:
        until_they_train(tmp_path, process)
        assert len(processes_of(tmp_path)) == 1 + len(NAMES)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "shoal: interrupted; the server and the hospitals have ended"
    assert not processes_of(tmp_path)


def test_a_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "operators.json").write_text("damaged")
    with begun(tmp_path) as process:
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert "the server ended with status 2" in stderr
    assert "operators.json is damaged" in stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--seeds", "3"], "add --simulate"), (["--rounds", "0"], "a plan has at least one round, not 0"),
     (["--simulate", "--folder", "x"], "leave out --simulate"),
     (["--simulate", "--secure"], "leave out --simulate"), (["--kill", "mask"], "add --secure")],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(options, message):
    done = CliRunner().invoke(demo.app, ["hospitals", *options])
    assert isinstance(done.exception, SettingError)
    assert message in str(done.exception)
