"""Rosters: files of all kinds of wrongness, put together, and read again when they change."""

from __future__ import annotations

import os

import pytest

from shoal.client.roster import RosterFile, merged, read_roster, roster_text, write_roster
from shoal.errors import PolicyError, SettingError

A, B, C = (bytes([n]) * 32 for n in range(3))
NAMES = ["north", "Zürich 2", "a.b@c:d+e-f", "x" * 128]


def test_what_is_written_is_read_whatever_the_names(tmp_path):
    sites = {name: os.urandom(32) for name in NAMES}
    write_roster(tmp_path / "roster.toml", sites)
    assert read_roster(tmp_path / "roster.toml") == sites
    assert (tmp_path / "roster.toml").stat().st_mode & 0o077 == 0
    assert roster_text(dict(reversed(sites.items()))) == roster_text(sites)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has one section, \\[clients\\]"),
        ("clients = 3", "has one section"),
        (f'[clients]\nnorth = "{A.hex()}"\n[servers]', "has one section"),
        ("[clients]\nnorth = 12", "the key of 'north' is 64 digits"),
        (f'[clients]\nnorth = "{A.hex()[:-2]}"', "the key of 'north' is 64 digits"),
        (f'[clients]\nnorth = "{"AB" * 32}"', "the key of 'north' is 64 digits"),
        (f'[clients]\n"" = "{A.hex()}"', "the key of '' is 64 digits"),
        (f'[clients]\n"../x" = "{A.hex()}"', "64 digits"),
        (f'[clients]\na = "{A.hex()}"\nb = "{A.hex()}"', "has the same key for a and b"),
        (f'[clients]\na = "{A.hex()}"\na = "{B.hex()}"', "is no TOML file"),
        ("[clients", "is no TOML file"),
    ],
)
def test_a_file_that_is_no_roster_is_told_why(tmp_path, text, said):
    (tmp_path / "roster.toml").write_text(text)
    with pytest.raises(SettingError, match=said) as caught:
        read_roster(tmp_path / "roster.toml")
    assert str(tmp_path / "roster.toml") in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        read_roster(tmp_path / "none.toml")
    (tmp_path / "roster.toml").write_bytes(b"\xff")
    with pytest.raises(SettingError, match="is no TOML file"):
        read_roster(tmp_path / "roster.toml")


def test_rosters_become_one_unless_they_contradict_each_other():
    assert merged([("x", {"a": A}), ("y", {"b": B, "a": A})]) == {"a": A, "b": B}
    with pytest.raises(SettingError, match="y has another key for a than was read before: ask a which is theirs"):
        merged([("x", {"a": A}), ("y", {"a": B})])
    with pytest.raises(SettingError, match="y has the same key for a and b"):
        merged([("x", {"a": A}), ("y", {"b": A})])


def test_a_site_is_on_its_own_roster_and_a_changed_file_holds_from_the_next_reading_on(tmp_path):
    roster = RosterFile(tmp_path, name="c", key=C)
    path = tmp_path / "roster.toml"
    assert roster.sites() == {}
    write_roster(path, {"a": A, "b": B})
    assert roster.sites() == {"a": A, "b": B, "c": C}
    assert roster.sites() is roster.sites()
    write_roster(path, {"c": C, "b": B})
    os.utime(path, ns=(1, 1))
    assert roster.sites() == {"b": B, "c": C}
    path.unlink()
    assert roster.sites() == {}


@pytest.mark.parametrize("sites", [{"c": A}, {"a": C}])
def test_a_roster_with_another_key_for_this_site_is_refused_as_long_as_it_is_there(tmp_path, sites):
    write_roster(tmp_path / "roster.toml", sites)
    roster = RosterFile(tmp_path, name="c", key=C)
    for _ in range(2):
        with pytest.raises(PolicyError, match="this site's own key has"):
            roster.sites()
    (tmp_path / "roster.toml").write_text("[clients")
    with pytest.raises(PolicyError, match="is no TOML file"):
        roster.sites()
