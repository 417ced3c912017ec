"""What a server says of its ledger, and what `shoal serve` takes as a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shoal
from shoal import Budget, Clip, Gaussian, PlainSum
from shoal.privacy import Releases, spent
from shoal.server.federation import Federation
from shoal.store.store import open_store
from tests.cli.conftest import Shoal

CHAIN = Clip(1.0) >> PlainSum() >> Gaussian(5.0, clients=10)
NOISED = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), aggregation=CHAIN), rounds=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server with a budget and a run of which two rounds have been released."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module", autouse=True)
def server(folder: Path):
    federation = Federation.at(folder, port=0, budget=Budget(8, 1e-6))
    with federation.running() as serving:
        run = serving.call(federation.submit_once(NOISED, name="heart", seed=1))
        spending = federation.coordinator._services.spending
        for round in range(2):
            serving.call(spending.record(NOISED, run=run, round=round, attempt=0, time=1.0))
        yield


def test_the_ledger_is_shown_in_all_and_by_run_with_what_is_left(shoal_command: Shoal, folder: Path) -> None:
    epsilon = spent(Releases(5.0, 2), delta=1e-6).epsilon
    text = shoal_command("privacy", "--ledger", "--folder", folder)
    assert text.exit_code == 0, text.output
    lines = text.stdout.splitlines()
    assert lines[0] == f"epsilon     {epsilon:.4g} at delta 1e-06"
    assert "one client's contributions replaced by zeros" in lines[1]
    assert f"left        epsilon {8 - epsilon:.4g}" in lines
    assert any(line.startswith("budget      epsilon 8 at delta 1e-06, since ") for line in lines)
    assert lines[-1].split()[-6:] == ["waiting", "0", "of", "4", "2", f"{epsilon:.4g}"]
    told = json.loads(shoal_command("privacy", "--ledger", "--folder", folder, "--json").stdout)
    assert told["epsilon"] == told["runs"][0]["epsilon"] == epsilon
    assert (told["budget"]["epsilon"], told["left"]) == (8.0, 8 - epsilon)
    assert sum(told["runs"][0]["releases"].values()) == 2


def test_another_delta_may_be_asked_for(shoal_command: Shoal, folder: Path) -> None:
    told = json.loads(shoal_command("privacy", "--ledger", "--folder", folder, "--json", "--delta", "1e-8").stdout)
    assert told["epsilon"] == spent(Releases(5.0, 2), delta=1e-8).epsilon
    assert told["left"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("privacy",), "name a study file"),
        (("privacy", "study.py", "--ledger"), "leave the study and --epsilon out"),
        (("serve", "--epsilon", "8"), "say both"),
        (("serve", "--delta", "1e-6"), "say both"),
    ],
)
def test_what_does_not_go_together_is_refused(shoal_command: Shoal, arguments: tuple[str, ...], said: str) -> None:
    found = shoal_command(*arguments)
    assert found.exit_code != 0
    assert said in f"{found.output}{found.exception}"


def test_a_budget_is_kept_until_another_is_said_and_the_audit_log_says_so(tmp_path: Path) -> None:
    def started(budget: Budget | None) -> Budget | None:
        federation = Federation.at(tmp_path, port=0, budget=budget)
        federation.store.close()
        return federation.budget

    assert started(None) is None
    assert started(Budget(4, 1e-6)) == started(None) == started(Budget(4, 1e-6)) == Budget(4, 1e-6)
    assert started(Budget(2, 1e-7)) == started(None) == Budget(2, 1e-7)
    store = open_store(str(tmp_path / "store.sqlite"))
    rows = store.read("audit", after=0, limit=10)
    store.close()
    assert [row["detail"] for row in rows if row["action"] == "budget"] == [
        "epsilon 4 at delta 1e-06", "epsilon 2 at delta 1e-07, before epsilon 4 at delta 1e-06",
    ]  # fmt: skip
