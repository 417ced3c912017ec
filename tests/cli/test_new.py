"""`shoal new`: a project that runs as it is, and whose README is followed."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import shoal
from shoal.cli.app import app
from shoal.cli.study_file import load
from shoal.client.policy import Policy
from shoal.errors import SettingError
from shoal.operator import Operator
from tests.commands import Machine, blocks_of, commands_of, free_port

SITES = ("north", "south", "west")


def new(*arguments):
    return CliRunner().invoke(app, ["new", *map(str, arguments)])


def test_a_project_has_a_study_that_simulates(tmp_path):
    done = new(tmp_path / "heart", "--json")
    answer = json.loads(done.stdout)
    assert sorted(answer["files"]) == sorted(
        str(path.relative_to(tmp_path / "heart")) for path in (tmp_path / "heart").rglob("*") if path.is_file()
    )
    study = load(tmp_path / "heart" / "study.py")
    population, test = study.data()
    assert tuple(population.names) == SITES
    result = shoal.simulate(study.plan, population, progress="off")
    assert result.evaluate(test).pooled["accuracy"] > np.mean(test.everything().rows("y"))
    assert Policy.load(tmp_path / "heart" / "policy.toml").allow == ("study",)
    assert (tmp_path / "heart" / "README.md").read_text().startswith("# heart\n")


@pytest.mark.parametrize("name", ["a b", "-x", ".hidden"])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    done = CliRunner().invoke(app, ["new", "--", str(tmp_path / name)])
    assert isinstance(done.exception, SettingError)
    assert "a project's name is of letters" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "heart").mkdir()
    (tmp_path / "heart" / "notes.txt").write_text("mine")
    for name in ("heart", "heart/notes.txt"):
        done = new(tmp_path / name)
        assert isinstance(done.exception, SettingError)
        assert "is there already, and nothing is overwritten" in str(done.exception)
    assert [path.name for path in (tmp_path / "heart").iterdir()] == ["notes.txt"]


def test_a_folder_that_is_empty_may_be_there(tmp_path):
    (tmp_path / "heart").mkdir()
    assert new(tmp_path / "heart").exit_code == 0


@pytest.mark.slow
def test_the_commands_of_its_readme_end_with_a_model(tmp_path):
    machine, port, token = Machine(tmp_path, tmp_path / "home", tmp_path / "cache"), str(free_port()), ""
    machine.run("shoal new heart")
    machine.run("cd heart")
    install, six = [text for language, text in blocks_of((machine.folder / "README.md").read_text())]
    assert install.startswith("$ pip install 'shoal[arrow]'")
    try:
        for _, shown in commands_of(six):
            command = shown.replace("8433", port).replace("TOKEN", token)
            if command.startswith("shoal serve"):
                machine.begin(f"{command} --port {port}", until="At the site:")
            elif command.startswith("shoal token"):
                token = machine.run(command).strip()
            elif command.startswith("shoal join"):
                for site in SITES:
                    machine.begin(re.sub(r"\bnorth\b", site, command), until="allowed")
            else:
                if command.startswith("shoal model"):
                    wait_for_the_end(machine.folder)
                machine.run(command)
        model = load(machine.folder / "study.py").plan.algorithm.model
        assert shoal.load_vector(machine.folder / "model.safetensors", model).shape == (6,)
    finally:
        machine.stop()


def wait_for_the_end(folder):
    with Operator.at(folder / ".shoal/server") as operator:
        end = time.monotonic() + 120
        while operator.run("study").status != "completed":
            assert time.monotonic() < end, operator.run("study")
            time.sleep(0.2)
