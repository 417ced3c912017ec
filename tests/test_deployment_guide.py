"""The deployment guide is followed command by command, on one machine, by a server and three hospitals."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import shoal
from shoal.cli.app import app
from shoal.cli.study_file import load
from shoal.client.ledger import Ledger
from shoal.operator import Operator
from tests.commands import Machine, blocks_of, commands_of, free_port

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/deployment.md").read_text("utf-8")
HOSPITALS = ("north", "south", "west")
UNITS = ("shoal-server.service", "shoal-client.service")


class Followed:
    """A reader with four machines, who reads the page from top to bottom."""

    def __init__(self, folder):
        self.server = Machine(folder / "server", folder / "server-home", folder / "cache")
        self.hospitals = {name: Machine(folder / name, folder / f"{name}-home", folder / "cache") for name in HOSPITALS}
        self.port, self.known, self.said = free_port(), {}, {}

    def stop(self):
        for machine in (*self.hospitals.values(), self.server):
            machine.stop()

    def here(self, command):
        """The command as it is typed where everything is on one machine."""
        for of_page, of_test in (
            ("heart.example.org", "localhost"), ("0.0.0.0", "127.0.0.1"), ("8433", str(self.port)), *self.known.items()
        ):  # fmt: skip
            command = command.replace(of_page, of_test)
        return command

    def block(self, language, text):
        if language == "toml":
            for machine in self.hospitals.values():
                (machine.folder / "policy.toml").write_text(text.replace("DIGEST", self.known["DIGEST"]))
        if language != "console":
            return
        for where, command in commands_of(text):
            if where == "server":
                self.at_server(command)
            else:
                assert where == "north"
                for name in HOSPITALS if "shoal join" in command else HOSPITALS[:1]:
                    self.at_hospital(name, re.sub(r"\bnorth\b", name, command))

    def at_server(self, command):
        if "shoal serve" in command:
            self.server.stop()
            said = self.server.begin(self.here(command), until="At the site:")
            self.known["FINGERPRINT"] = re.search(r"fingerprint +([0-9A-Fa-f:]+)", said)[1]
        elif "shoal token" in command:
            for name in HOSPITALS:
                said = self.server.run(self.here(command.replace("north", name)))
                self.known[f"TOKEN --name {name}"] = f"{said.strip()} --name {name}"
        else:
            if command.startswith("shoal model"):
                self.wait_until(lambda operator: operator.run("study").status == "completed")
            if command == "shoal clients":
                self.wait_until(lambda operator: sum(client.online for client in operator.clients()) == len(HOSPITALS))
            self.said[command] = self.server.run(self.here(command))
        if "plan.json" in command:
            self.known["DIGEST"] = json.loads((self.server.folder / "plan.json").read_text())["digest"]
            for name, machine in self.hospitals.items():
                shutil.copy(self.server.folder / "plan.json", machine.folder)
                shutil.copy(self.server.folder / "data" / f"{name}.csv", machine.folder / "patients.csv")

    def at_hospital(self, name, command):
        machine = self.hospitals[name]
        if "shoal join" in command:
            machine.begin(self.here(command), until="allowed")
        else:
            self.said[f"{name}: {command}"] = machine.run(self.here(command))

    def wait_until(self, condition):
        with Operator.at(self.server.folder / ".shoal/server") as operator:
            end = time.monotonic() + 120
            while not condition(operator):
                assert time.monotonic() < end, operator.run("study")
                time.sleep(0.2)


@pytest.mark.slow
def test_the_page_followed_ends_with_the_model_of_a_simulation(tmp_path):
    reader = Followed(tmp_path)
    try:
        for language, text in blocks_of(PAGE):
            reader.block(language, text)
        check_the_model(reader.server.folder)
        for machine in reader.hospitals.values():
            check_the_hospital(machine)
        assert "The ledger is whole." in reader.said["north: shoal ledger"]
        assert "completed" in reader.said["shoal show study --folder restored"]
        check_what_is_scraped(reader)
    finally:
        reader.stop()


def check_the_model(folder):
    study = load(folder / "study.py")
    population, _ = study.data()
    wanted = shoal.simulate(study.plan, population, runtime="local", progress="off")
    vector = shoal.load_vector(folder / "model.safetensors", study.plan.algorithm.model)
    assert np.linalg.norm(vector) > 0.1
    assert vector == pytest.approx(wanted.vector, abs=1e-5)  # rows are shuffled by another seed


def check_the_hospital(machine):
    (home,) = [path.parent for path in Path(machine.environment["HOME"], ".shoal").glob("*/key.pem")]
    with Ledger.existing(home / "ledger.db") as ledger:
        kinds = Counter(entry.kind for entry in ledger.entries())
        assert ledger.verify() == ()
    assert kinds == {"enroll": 1, "result": 20, "verdict": 20}


def check_what_is_scraped(reader):
    assert "metrics_path" not in PAGE  # /metrics is where Prometheus looks
    context = ssl.create_default_context(cafile=reader.server.folder / "restored" / "certificates" / "authority.pem")
    for path in ("metrics", "healthz", "readyz"):
        with urllib.request.urlopen(f"https://localhost:{reader.port}/{path}", context=context) as answer:
            assert answer.status == 200


def test_every_message_of_the_page_is_one_of_shoals():
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "src/shoal").rglob("*.py"))
    rows = [line for line in PAGE.partition("### What messages mean")[2].splitlines() if line.startswith("| `")]
    assert len(rows) > 10
    for row in rows:
        for message in re.findall("`([^`]+)`", row.split("|")[1]):
            assert message in source


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_one_of_systemds(tmp_path, name):
    text = (ROOT / "deploy" / name).read_text("utf-8")
    assert "ExecStart=/opt/shoal/bin/shoal " in text
    there = text.replace("/opt/shoal/bin/shoal", "/bin/true").replace("User=shoal\nGroup=shoal\n", "")
    (tmp_path / name).write_text(there)
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    if shutil.which("systemd-analyze") is not None:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / name)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_asks_for_options_that_there_are(name):
    (line,) = re.findall(r"^ExecStart=\S+ (\w+) (.*)$", (ROOT / "deploy" / name).read_text("utf-8"), re.MULTILINE)
    command, options = line
    known = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).stdout
    assert all(option in known for option in re.findall(r"--[a-z-]+", options))
