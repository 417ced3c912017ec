"""Commands for operators, on a server that runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import shoal
from shoal.cli.durations import seconds
from shoal.cli.tables import plain
from shoal.errors import ServerError, SettingError
from shoal.operator import Operator
from shoal.server.address import Address
from shoal.server.federation import Federation
from tests.cli.conftest import Shoal

PLAN = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3)), rounds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server that runs, with one run."""
    folder = tmp_path_factory.mktemp("server")
    federation = Federation.at(folder, port=0)
    with federation.running() as serving:
        serving.call(federation.submit_once(PLAN, name="heart", seed=1))
        yield folder


@pytest.fixture
def told(shoal_command: Shoal, folder: Path) -> Any:
    """What a command prints, as text and as JSON."""

    def run(*arguments: str) -> tuple[str, Any]:
        text, as_json = (shoal_command(*arguments, "--folder", folder, *more) for more in ((), ("--json",)))
        assert (text.exit_code, as_json.exit_code) == (0, 0), (text.output, as_json.output)
        return text.stdout, json.loads(as_json.stdout)

    return run


def test_runs_are_listed_and_shown(told: Any) -> None:
    text, (run,) = told("runs")
    assert "heart" in text
    assert (run["name"], run["rounds"], run["plan_digest"]) == ("heart", 2, PLAN.digest())
    text, found = told("show", "heart")
    assert found["id"] == run["id"]
    assert f"plan      {PLAN.digest()}" in text
    assert "0 of 2 closed" in text


def test_a_run_is_paused_resumed_and_cancelled(told: Any, folder: Path) -> None:
    with Operator.at(folder) as operator:
        operator.submit(PLAN, name="short")
    assert told("pause", "short")[0].startswith("short is paused")
    assert told("resume", "short")[1]["status"] == "waiting"
    assert told("cancel", "short")[0].startswith("short is cancelled")


def test_a_model_is_saved(shoal_command: Shoal, folder: Path, tmp_path: Path) -> None:
    done = shoal_command("model", "heart", "-o", "m.safetensors", "--folder", folder, "--json")
    said = json.loads(done.stdout)
    assert (said["round"], said["bytes"]) == (0, (tmp_path / "m.safetensors").stat().st_size)
    assert load_file(tmp_path / "m.safetensors")
    refused = shoal_command("model", "heart", "-o", "no/such/m.safetensors", "--folder", folder)
    assert isinstance(refused.exception, SettingError)


def test_a_token_is_the_only_thing_on_stdout(shoal_command: Shoal, folder: Path) -> None:
    done = shoal_command("token", "--uses", "3", "--label", "ward 3", "--lasts", "1h", "--folder", folder)
    assert done.stdout.startswith("shoal-")
    assert len(done.stdout.split()) == 1
    assert "for 3 clients" in done.stderr
    with Operator.at(folder) as operator:
        (made,) = [token for token in operator.tokens() if token.label == "ward 3"]
    assert made.uses_left == 3
    assert made.expires - made.created == pytest.approx(3600.0)


def test_the_audit_log_of_a_run_is_of_that_run(told: Any, shoal_command: Shoal, folder: Path) -> None:
    told("token")
    everything = shoal_command("logs", "--folder", folder).stdout
    own = shoal_command("logs", "heart", "--folder", folder, "--json").stdout
    assert "operator: token" in everything
    assert {json.loads(line)["action"] for line in own.splitlines()} >= {"submitted"}
    assert "token" not in {json.loads(line)["action"] for line in own.splitlines()}


def test_nobody_is_enrolled_and_nobody_is_revoked(told: Any, shoal_command: Shoal, folder: Path) -> None:
    assert told("clients") == ("No client is enrolled.\n", [])
    refused = shoal_command("revoke", "nobody", "--folder", folder)
    assert isinstance(refused.exception, ServerError)


def test_a_server_elsewhere_is_asked_with_a_token_and_an_authority(shoal_command: Shoal, folder: Path) -> None:
    where = ("--server", Address.of(folder).url)
    trust = ("--ca", folder / "certificates/authority.pem")
    done = shoal_command("runs", *where, *trust, "--operator-token-file", folder / "viewer.token", "--json")
    assert "heart" in [run["name"] for run in json.loads(done.stdout)]
    viewer = shoal_command("pause", "heart", *where, *trust, "--operator-token-file", folder / "viewer.token")
    assert isinstance(viewer.exception, ServerError)
    assert isinstance(shoal_command("runs", *where, *trust).exception, SettingError)
    assert isinstance(shoal_command("runs", "--folder", folder, *trust).exception, SettingError)


@pytest.mark.parametrize("options", [("--clients", "2"), ("--until-done",), ("--name", "x"), ("--cert", "a.pem")])
def test_a_server_is_not_started_with_options_that_say_nothing(shoal_command: Shoal, options: tuple[str, ...]) -> None:
    assert isinstance(shoal_command("serve", *options).exception, SettingError)


def test_durations_are_written_with_units() -> None:
    assert [seconds(text) for text in ("90", "2m", "1h30m", "7d")] == [90.0, 120.0, 5400.0, 604_800.0]
    for wrong in ("", "h", "1w", "-1h", "1 h"):
        with pytest.raises(SettingError, match="a duration is such as"):
            seconds(wrong)


def test_what_comes_from_elsewhere_does_not_command_the_terminal() -> None:
    assert plain("a\x1b[31mb\nc\u202ed ü") == "a?[31mb?c?d ü"
