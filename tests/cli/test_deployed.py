"""A server and two sites as people start them: four commands, over TLS on this machine."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.operator import Operator

SHOAL = str(Path(sys.executable).parent / "shoal")
STUDY = """\
import shoal

plan = shoal.Plan(
    shoal.FedAvg(shoal.models.logistic(2), client_optimizer=shoal.sgd(0.1)),
    rounds=4,
    data=shoal.Schema(["age", "pressure"], "ill", classes=2),
)
"""
WITHIN_S = 60.0


class Commands:
    """Commands that run beside each other in one folder, and end with the test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._around = {**os.environ, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        out = self._stack.enter_context((self._folder / f"{arguments[0]}-{len(os.listdir(self._folder))}").open("w+"))
        process = subprocess.Popen(
            [SHOAL, *arguments], cwd=self._folder, env=self._around, stdin=stdin, stdout=out, stderr=out, text=True
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def opened(self, operator: Operator) -> Operator:
        return self._stack.enter_context(operator)

    def terminal(self) -> tuple[int, int]:
        """The ends of a terminal: a person's, and a command's."""
        ends = pty.openpty()
        for end in ends:
            self._stack.callback(os.close, end)
        return ends

    def ended(self, process: subprocess.Popen[str]) -> int:
        process.send_signal(signal.SIGTERM)
        return process.wait(WITHIN_S)


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with ExitStack() as stack:
        yield Commands(tmp_path, stack)


def eventually(found: object, what: str) -> None:
    """Waits until a function gives something that is true."""
    until = time.monotonic() + WITHIN_S
    while not found():  # type: ignore[operator]
        assert time.monotonic() < until, what
        time.sleep(0.1)


def wards(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two sites' tables, each in a file; and their numbers as a simulation takes them."""
    tables = {}
    for place, name in enumerate(("ward-1", "ward-2")):
        x = np.random.default_rng(place).normal(size=(30, 2)).round(3).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int32)
        lines = [f"{age},{pressure},{ill}" for (age, pressure), ill in zip(x, y, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["age,pressure,ill", *lines]))
        tables[name] = (x, y)
    return tables


def test_a_study_is_served_two_sites_join_and_the_model_is_that_of_a_simulation(
    commands: Commands, tmp_path: Path
) -> None:
    tables = wards(tmp_path)
    (tmp_path / "study.py").write_text(STUDY)
    server = commands.start("serve", "study.py", "--clients", "2", "--seed", "3", "--port", "0", "--folder", "server")
    eventually((tmp_path / "server/server.json").exists, "the server started")
    operator = commands.opened(Operator.at(tmp_path / "server"))
    eventually(operator.runs, "the run was begun")
    trust = ("--ca", "server/certificates/authority.pem", "--token", operator.token(uses=2).token)
    join = ("join", operator.server, *trust)
    scripted = commands.start(*join, "--data", "ward-1.csv", "--name", "ward-1", "--home", "one", "--yes")
    person, terminal = commands.terminal()
    asked = commands.start(*join, "--data", "ward-2.csv", "--name", "ward-2", "--home", "two", stdin=terminal)
    os.write(person, b"y\n")
    eventually(lambda: operator.run("study").status == "completed", "the run was completed")
    model = operator.model("study", tmp_path / "model.safetensors")
    assert [commands.ended(process) for process in (scripted, asked, server)] == [0, 0, 0]

    plan = shoal.Plan(
        shoal.FedAvg(shoal.models.logistic(2), client_optimizer=shoal.sgd(0.1)),
        rounds=4,
        data=shoal.Schema(["age", "pressure"], "ill", classes=2),
    )
    population = shoal.Population.from_clients(tables)
    expected = shoal.simulate(plan, population, seed=3, runtime="local").vector
    np.testing.assert_allclose(shoal.load_vector(model, plan.algorithm.model), expected, rtol=1e-6, atol=1e-7)
    assert plan.digest() in (tmp_path / "two/approved.toml").read_text()


def test_a_server_that_was_killed_goes_on_from_its_folder(commands: Commands, tmp_path: Path) -> None:
    wards(tmp_path)
    (tmp_path / "study.py").write_text(STUDY)
    serve = ("serve", "study.py", "--at-least", "1", "--port", "0", "--folder", "server", "--json")
    killed = commands.start(*serve)
    eventually((tmp_path / "server/server.json").exists, "the server started")
    with Operator.at(tmp_path / "server") as operator:
        eventually(operator.runs, "the run was begun")
        (run,) = operator.runs()
    killed.kill()
    killed.wait()
    (tmp_path / "server/server.json").unlink()
    again = commands.start(*serve)
    eventually((tmp_path / "server/server.json").exists, "the server started again")
    with Operator.at(tmp_path / "server") as operator:
        assert [one.id for one in operator.runs()] == [run.id]
    assert commands.ended(again) == 0
    told = [path.read_text() for path in sorted(tmp_path.glob("serve-*"))]
    assert all(json.loads(text.splitlines()[0])["federation"] == "shoal" for text in told)
