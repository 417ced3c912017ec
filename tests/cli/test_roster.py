"""`shoal roster`, and the rosters that `shoal join` and `shoal policy check` are given."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.client.identity import Home, Identity
from shoal.client.roster import read_roster
from shoal.errors import SettingError
from shoal.wire.signing import public_key_of
from tests.cli.conftest import Shoal

STUDY = """\
import shoal

chain = shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(3) >> shoal.Mean()
plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(2), aggregation=chain), rounds=3)
"""


def test_each_site_prints_its_line_and_all_lines_become_one_roster(shoal_command: Shoal, tmp_path: Path) -> None:
    for name in ("north", "south"):
        done = shoal_command("roster", "--home", name, "--name", name)
        assert done.exit_code == 0, done.output
        (tmp_path / f"{name}.toml").write_text(done.stdout)
    (tmp_path / "roster.toml").write_text(shoal_command("roster", "north.toml", "south.toml").stdout)
    keys = {name: public_key_of(Home(tmp_path / name).private_key) for name in ("north", "south")}
    assert read_roster(tmp_path / "roster.toml") == keys


def test_an_enrolled_site_knows_its_name(shoal_command: Shoal, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.remember(Identity("https://h", "wards", "c1", "ward 3"))
    assert '"ward 3" = "' in shoal_command("roster", "--home", "home").stdout
    done = shoal_command("roster", "--home", "home", "--name", "other")
    assert isinstance(done.exception, SettingError) and "is enrolled as ward 3" in str(done.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--home", "new"), "say with --name"),
        (("none.toml",), "cannot be read"),
        (("x", "--name", "a"), "leave them out"),
    ],
)
def test_what_cannot_be_printed_is_a_sentence(shoal_command: Shoal, options: tuple[str, ...], said: str) -> None:
    done = shoal_command("roster", *options)
    assert isinstance(done.exception, SettingError) and said in str(done.exception)


def test_a_policy_is_checked_with_the_roster_that_the_site_will_have(shoal_command: Shoal, tmp_path: Path) -> None:
    (tmp_path / "study.py").write_text(STUDY)
    (tmp_path / "policy.toml").write_text('[plans]\nallow = "any"\n[privacy]\nsecure_sum = true\n')
    check = ("policy", "check", "--study", "study.py")
    done = shoal_command(*check)
    assert done.exit_code == 1 and "knows no other site's key" in done.stdout
    lines = "".join(f'{name} = "{name.encode().hex() * 32}"\n' for name in "abc")
    (tmp_path / "roster.toml").write_text("[clients]\n" + lines)
    assert shoal_command(*check, "--roster", "roster.toml").exit_code == 0


def test_a_roster_that_is_none_is_told_before_anything_is_connected(shoal_command: Shoal, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,y\n1,0\n")
    (tmp_path / "roster.toml").write_text("[sites]\n")
    options = ("--data", "data.csv", "--home", "home", "--yes", "--roster", "roster.toml")
    done = shoal_command("join", "https://127.0.0.1:1", *options)
    assert isinstance(done.exception, SettingError) and "has one section, [clients]" in str(done.exception)
    assert not (tmp_path / "home" / "roster.toml").exists()
