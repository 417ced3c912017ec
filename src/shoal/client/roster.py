"""The keys of a federation's sites as this site knows them: a TOML file that people bring, and no server.

A secure sum hides a contribution from a server only if the other sites are who they say they are. So their public keys
come by another way, from people, and a site gives its own in the same form.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shoal.errors import PolicyError, SettingError
from shoal.whole_file import write_whole

FILE = "roster.toml"
"""The roster's name in a client's home."""

_NAME = re.compile(r"[\w][\w .@:+-]{0,127}")


def roster_text(sites: Mapping[str, bytes]) -> str:
    """A roster as a file has it, by name.

    >>> print(roster_text({"north": bytes(32)}), end="")
    [clients]
    "north" = "0000000000000000000000000000000000000000000000000000000000000000"
    """
    lines = (f'{json.dumps(name, ensure_ascii=False)} = "{key.hex()}"\n' for name, key in sorted(sites.items()))
    return "".join(("[clients]\n", *lines))


def read_roster(path: str | Path) -> dict[str, bytes]:
    """The public keys in a file, by name; SettingError if it is no roster, or names one site or one key twice."""
    try:
        told = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SettingError(f"the roster {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"the roster {path} is no TOML file: {error}") from error
    clients = told.get("clients")
    if told.keys() != {"clients"} or not isinstance(clients, dict):
        raise SettingError(f"the roster {path} has one section, [clients], and a line for each site: name = key")
    keys: dict[str, Any] = clients
    for name, key in keys.items():
        if not _NAME.fullmatch(name) or not isinstance(key, str) or not re.fullmatch("[0-9a-f]{64}", key):
            raise SettingError(f"the roster {path}: the key of {name!a} is 64 digits of 0-9 and a-f, in quotes")
    return merged([(str(path), {name: bytes.fromhex(key) for name, key in keys.items()})])


def merged(rosters: Iterable[tuple[str, Mapping[str, bytes]]]) -> dict[str, bytes]:
    """All sites of several rosters, each given with what it is called.

    SettingError if a name has two keys, or a key two names: somebody has to ask by telephone then.
    """
    keys: dict[str, bytes] = {}
    owners: dict[bytes, str] = {}
    for called, sites in rosters:
        for name, key in sites.items():
            if keys.setdefault(name, key) != key:
                raise SettingError(
                    f"{called} has another key for {name} than was read before: ask {name} which is theirs"
                )
            if owners.setdefault(key, name) != name:
                raise SettingError(f"{called} has the same key for {owners[key]} and {name}: ask both for theirs")
    return keys


def write_roster(path: str | Path, sites: Mapping[str, bytes]) -> None:
    """Writes a roster's file."""
    write_whole(Path(path), roster_text(sites).encode(), mode=0o600)


class RosterFile:
    """The roster in a site's home, read again when it has changed. The site itself is in it, if anybody else is."""

    def __init__(self, home: str | Path, *, name: str, key: bytes) -> None:
        self._path, self._name, self._key = Path(home) / FILE, name, key
        self._seen: tuple[int, ...] = ()
        self._sites: Mapping[str, bytes] = {}

    def sites(self) -> Mapping[str, bytes]:
        """The public keys by name, nobody's if there is no file; PolicyError for one that cannot be used."""
        try:
            about = self._path.stat()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PolicyError(f"the roster {self._path} cannot be read: {error.strerror}") from error
        seen = (about.st_mtime_ns, about.st_size, about.st_ino)
        if seen != self._seen:
            try:
                own = ("this site's own key", {self._name: self._key})
                self._sites = merged([(str(self._path), read_roster(self._path)), own])
            except SettingError as error:
                raise PolicyError(str(error)) from error
            self._seen = seen
        return self._sites
