"""Commands at a site: joining, what is allowed, what left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import shoal
from shoal.cli import homes
from shoal.cli.site import Telling
from shoal.client.consent import Consent
from shoal.client.identity import Home
from shoal.client.joining import authority_with, joined
from shoal.errors import PolicyError, ServerError, SettingError, StoreError
from shoal.server.federation import Federation
from shoal.server.serving import Serving
from shoal.wire.messages import RunInfo
from tests.cli.conftest import Shoal

STUDY = """\
import shoal

plan = shoal.Plan(
    shoal.FedAvg(shoal.models.logistic(2)), rounds=3, data=shoal.Schema(["age", "pressure"], "ill", classes=2)
)
"""
PLAN = shoal.Plan(
    shoal.FedAvg(shoal.models.logistic(2)), rounds=3, data=shoal.Schema(["age", "pressure"], "ill", classes=2)
)
INFO = RunInfo(run="r1", name="heart", plan=b"", plan_digest=PLAN.digest(), minimum_cohort=3)


@dataclass(frozen=True)
class Server:
    """A server that runs, with a run that one client is enough for."""

    federation: Federation
    serving: Serving

    @property
    def url(self) -> str:
        return self.federation.url

    @property
    def fingerprint(self) -> str:
        assert self.federation.tls is not None
        return self.federation.tls.fingerprint

    def token(self) -> str:
        return self.serving.call(self.federation.coordinator.token(label="ward"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this file."""
    federation = Federation.at(tmp_path_factory.mktemp("server"), port=0)
    with federation.running() as serving:
        serving.call(federation.submit_once(PLAN, name="heart", rules=shoal.Rules(at_least=1), seed=1))
        yield Server(federation, serving)


@pytest.fixture
def ward(tmp_path: Path) -> Path:
    """A site's table."""
    x = np.random.default_rng(0).normal(size=(20, 2))
    lines = [f"{age:.3f},{pressure:.3f},{int(age > 0)}" for age, pressure in x]
    (tmp_path / "ward.csv").write_text("\n".join(["age,pressure,ill", *lines]))
    (tmp_path / "study.py").write_text(STUDY)
    return tmp_path


def join(shoal_command: Shoal, server: Server, *more: object) -> list[dict[str, object]]:
    """The events of a client that joined for one task."""
    trust = ("--fingerprint", server.fingerprint, "--token", server.token())
    done = shoal_command("join", server.url, *trust, "--data", "ward.csv", "--once", "--json", *more)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_client_joins_does_a_task_and_has_a_ledger_of_it(shoal_command: Shoal, server: Server, ward: Path) -> None:
    events = join(shoal_command, server, "--name", "ward-1", "--home", "home", "--yes")
    assert [event["event"] for event in events][-2:] == ["trained", "settled"]
    assert events[-1]["verdict"] == "counted"
    again = join(shoal_command, server, "--home", "home", "--yes")  # without a name: who it was
    assert again[0]["name"] == "ward-1"
    ledger = json.loads(shoal_command("ledger", "--home", "home", "--json").stdout)
    assert [entry["kind"] for entry in ledger["entries"]] == ["enroll", "result", "verdict", "result", "verdict"]
    assert ledger["wrong"] == []
    text = shoal_command("ledger", "--home", "home", "--export", "ledger.csv").stdout
    assert "The ledger is whole." in text
    assert len((ward / "ledger.csv").read_text().splitlines()) == 6


def test_a_policy_refuses_what_it_does_not_name_and_the_enrolment_is_all_that_left(
    shoal_command: Shoal, server: Server, ward: Path
) -> None:
    (ward / "policy.toml").write_text('[plans]\nallow = ["other-*"]\n')
    token = server.token()
    home = Home(ward / "home")
    joined(home, server.url, token=token, name="ward-2", authority=authority_with(server.url, server.fingerprint))
    done = shoal_command("policy", "check", "policy.toml", "--study", "study.py", "--home", "home")
    assert done.exit_code == 1
    assert "refused" in done.stdout
    ledger = json.loads(shoal_command("ledger", "--home", "home", "--json").stdout)
    assert [entry["kind"] for entry in ledger["entries"]] == ["enroll"]


def test_somebody_in_between_is_found_by_the_fingerprint(server: Server) -> None:
    assert "BEGIN CERTIFICATE" in authority_with(server.url, server.fingerprint.lower())
    with pytest.raises(ServerError, match="somebody is in between"):
        authority_with(server.url, "ab" * 32)
    with pytest.raises(SettingError, match="64 digits"):
        authority_with(server.url, "ab")


def test_without_a_fingerprint_a_server_of_its_own_authority_is_not_trusted(
    shoal_command: Shoal, server: Server, ward: Path
) -> None:
    done = shoal_command("join", server.url, "--token", "x", "--data", "ward.csv", "--home", "home", "--yes")
    assert isinstance(done.exception, ServerError)
    assert "nobody whom this machine trusts" in str(done.exception)
    assert not (ward / "home" / "identity.json").exists()


def test_a_home_is_one_clients_and_of_one_federation(server: Server, ward: Path) -> None:
    home = Home(ward / "home")
    authority = authority_with(server.url, server.fingerprint)
    with pytest.raises(SettingError, match="not enrolled yet"):
        joined(home, server.url, authority=authority)
    first = joined(home, server.url, token=server.token(), name="ward-3", authority=authority)
    assert joined(home, server.url) == first
    with pytest.raises(SettingError, match="enrolled as ward-3"):
        joined(home, server.url, name="other")
    other = Federation.at(ward / "other", port=0, name="others")
    with other.running():
        assert other.tls is not None
        with pytest.raises(SettingError, match="belongs to the federation shoal"):
            joined(home, other.url, authority=authority_with(other.url, other.tls.fingerprint))
    assert home.identity == first


def test_a_server_that_moved_is_the_same_federation(server: Server, ward: Path) -> None:
    home = Home(ward / "home")
    authority = authority_with(server.url, server.fingerprint)
    first = joined(home, server.url, token=server.token(), name="ward-4", authority=authority)
    moved = joined(home, server.url.replace("127.0.0.1", "localhost"))
    assert (moved.server != first.server, moved.client) == (True, first.client)
    assert home.identity == moved


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nobody is there to be asked"),
        (("--yes", "--policy", "policy.toml"), "give one of them"),
        (("--yes", "--ca", "a.pem", "--fingerprint", "00"), "give one of them"),
        (("--yes", "--ca", "a.pem"), "cannot be read"),
        (("--yes", "--grace", "soon"), "a duration"),
    ],
)
def test_options_that_cannot_be_are_sentences(
    shoal_command: Shoal, ward: Path, options: tuple[str, ...], said: str
) -> None:
    done = shoal_command("join", "https://127.0.0.1:1", "--data", "ward.csv", "--home", "home", *options)
    assert isinstance(done.exception, SettingError)
    assert said in str(done.exception)


def test_a_person_is_asked_once_about_a_plan(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(plan: shoal.Plan, info: RunInfo) -> bool:
        asked.append(info.name)
        return True

    for _ in range(2):
        consent = Consent(tmp_path / "approved.toml", ask)
        assert consent.policy(PLAN, INFO).allow == (f"sha256:{PLAN.digest()}",)
    assert asked == ["heart"]


def test_a_no_is_kept_until_the_process_ends(tmp_path: Path) -> None:
    asked: list[bool] = []
    consent = Consent(tmp_path / "approved.toml", lambda plan, info: asked.append(True) is not None)
    assert [consent.policy(PLAN, INFO).allow for _ in range(2)] == [(), ()]
    assert len(asked) == 1
    assert not (tmp_path / "approved.toml").exists()


def test_nobody_who_could_be_asked_is_no_answer(tmp_path: Path) -> None:
    answers = [None, True]
    consent = Consent(tmp_path / "approved.toml", lambda plan, info: answers.pop(0))
    assert [len(consent.policy(PLAN, INFO).allow) for _ in range(3)] == [0, 1, 1]


def test_a_damaged_file_of_plans_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "approved.toml").write_text("allow = everything")
    with pytest.raises(PolicyError):
        Consent(tmp_path / "approved.toml", lambda plan, info: True).policy(PLAN, INFO)
    assert (tmp_path / "approved.toml").read_text() == "allow = everything"


def test_a_policy_is_explained_and_judges_a_plan_as_it_would_be_sent(shoal_command: Shoal, ward: Path) -> None:
    (ward / "sample.toml").write_text(shoal_command("policy", "sample").stdout)
    assert "It allows no plan" in shoal_command("policy", "check", "sample.toml").stdout
    (ward / "plan.json").write_text(shoal_command("plan", "study.py", "--json").stdout)
    (ward / "policy.toml").write_text(f'[plans]\nallow = ["sha256:{PLAN.digest()}"]\n[privacy]\nminimum_cohort = 2\n')
    judged = shoal_command("policy", "check", "--plan", "plan.json", "--minimum-cohort", "2")
    assert (judged.exit_code, "allowed" in judged.stdout) == (0, True)
    refused = shoal_command("policy", "check", "--plan", "plan.json", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["reasons"] == ["minimum_cohort is 2, and rounds of this run may close with 1"]


@pytest.mark.parametrize("text", ["", "[]", '{"plan": {}}', '{"digest": "x"}'])
def test_a_description_that_is_none_is_a_sentence(shoal_command: Shoal, ward: Path, text: str) -> None:
    (ward / "policy.toml").write_text('[plans]\nallow = "any"\n')
    (ward / "plan.json").write_text(text)
    done = shoal_command("policy", "check", "--plan", "plan.json")
    assert isinstance(done.exception, shoal.errors.PlanError)


def test_a_home_is_found_if_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SettingError, match="no client lives"):
        homes.only_home()
    place = homes.default_home("https://[::1]:8433/")
    assert place.parent == tmp_path / ".shoal"
    for name in (place.name, "other-8433"):
        (place.parent / name).mkdir(parents=True)
        (place.parent / name / "ledger.db").touch()
        if name == place.name:
            assert homes.only_home() == place
    with pytest.raises(SettingError, match="several homes"):
        homes.only_home()


def test_a_ledger_that_is_not_there_is_a_sentence(shoal_command: Shoal) -> None:
    assert isinstance(shoal_command("ledger", "--home", "nowhere").exception, StoreError)


def test_a_person_who_is_asked_is_told_what_a_plan_gives_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    telling = Telling(Home(tmp_path), as_json=False)
    telling.plan(PLAN, INFO)
    assert "gives away  no epsilon is known: no noise is added before Mean" in capsys.readouterr().err
    chain = shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(3.0, clients=10)
    noised = shoal.Plan(shoal.FedAvg(shoal.models.logistic(2), aggregation=chain), rounds=1, cohort=shoal.Poisson(0.1))
    telling.plan(noised, INFO)
    epsilon = shoal.privacy.spent(shoal.privacy.Releases(3.0, 1), delta=1e-6).epsilon
    said = f"gives away  epsilon {epsilon:.4g} at delta 1e-06 in all rounds, if the server adds the noise"
    assert said in capsys.readouterr().err
