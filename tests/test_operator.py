"""An operator's calls to a server that runs: its folder, its API, and sentences for what does not go well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import shoal
from shoal.errors import ServerError, SettingError
from shoal.operator import Operator
from shoal.server.federation import Federation

PLAN = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3)), rounds=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a server that runs."""
    folder = tmp_path_factory.mktemp("server")
    with Federation.at(folder, port=0).running():
        yield folder


@pytest.fixture
def operator(folder: Path) -> Iterator[Operator]:
    """Who commands it, from its own machine."""
    with Operator.at(folder) as operator:
        yield operator


def test_a_run_is_begun_shown_paused_resumed_and_cancelled(operator: Operator) -> None:
    begun = operator.submit(PLAN, name="one run: heart", rules=shoal.Rules(at_least=3), seed=1)
    assert (begun.plan_digest, begun.status) == (PLAN.digest(), "waiting")
    assert operator.command("one run: heart", "pause").status == "paused"
    assert operator.command(begun.id, "resume").status == "waiting"
    assert operator.command(begun.id, "cancel").status == "cancelled"
    assert operator.run("one run: heart") in operator.runs()


def test_a_model_arrives_whole(operator: Operator, tmp_path: Path) -> None:
    operator.submit(PLAN, name="a model", seed=1)
    path = operator.model("a model", tmp_path / "model.safetensors")
    assert sum(np.size(array) for array in load_file(path).values()) == 4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_token_is_made_and_counted(operator: Operator) -> None:
    made = operator.token(label="ward 3", uses=2, lasts_s=60.0)
    assert made.token.startswith("shoal-")
    assert [token.uses_left for token in operator.tokens() if token.label == "ward 3"] == [2]


def test_the_audit_log_is_read_to_its_end_and_goes_on_from_a_row(operator: Operator) -> None:
    operator.token(label="first")
    operator.token(label="second")
    events = [event for event in operator.events() if event.detail in ("", "first", "second")]
    assert [event.object for event in events if event.action == "token"][-2:] == ["first", "second"]
    assert [event.object for event in operator.events(after=events[-2].seq)] == ["second"]


def test_the_audit_log_is_followed(operator: Operator) -> None:
    operator.token(label="before")
    following = operator.events(follow=True)
    while next(following).object != "before":
        pass
    operator.token(label="after")
    assert next(following).object == "after"


def test_what_the_server_refuses_is_its_sentence(operator: Operator) -> None:
    with pytest.raises(ServerError, match="there is no run nothing") as refused:
        operator.run("nothing")
    assert refused.value.code == "run-unknown"
    with pytest.raises(ServerError, match="there is no client"):
        operator.revoke("nobody")


def test_a_wrong_token_is_refused(folder: Path) -> None:
    with (
        Operator(Operator.at(folder).server, token="wrong", trusted=folder / "certificates/authority.pem") as stranger,
        pytest.raises(ServerError, match=r"operator\.token"),
    ):
        stranger.runs()


def test_a_server_whose_certificate_nobody_vouches_for_is_not_told_the_token(folder: Path) -> None:
    with (
        Operator(Operator.at(folder).server, token="secret") as stranger,
        pytest.raises(ServerError, match="nobody whom this machine trusts"),
    ):
        stranger.runs()


def test_a_server_that_is_not_there_is_told_with_what_to_check(tmp_path: Path) -> None:
    with Federation.at(tmp_path, port=0).running():
        gone = Operator.at(tmp_path)
    with gone, pytest.raises(ServerError, match="nothing answers at 127"):
        gone.runs()


def test_a_token_that_was_moved_is_asked_for(tmp_path: Path) -> None:
    with Federation.at(tmp_path, port=0).running():
        (tmp_path / "operator.token").unlink()
    with pytest.raises(SettingError, match="--operator-token-file"):
        Operator.at(tmp_path)
