"""Where clients live on this machine if nobody says: a folder for each server in ~/.shoal."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from shoal.client.tls import checked_url
from shoal.errors import SettingError


def default_home(url: str) -> Path:
    """The home for a server's URL."""
    parts = urlsplit(checked_url(url))
    return _homes() / f"{parts.hostname}{f'-{parts.port}' if parts.port else ''}".replace(":", "_")


def only_home() -> Path:
    """The one home that there is; SettingError if there is none, or if there are several."""
    found = sorted(path.parent for path in _homes().glob("*/ledger.db"))
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingError(f"there are several homes, so say which with --home: {', '.join(map(str, found))}")
    raise SettingError(f"no client lives in {_homes()}: shoal join makes a home, or name another with --home")


def _homes() -> Path:
    return Path.home() / ".shoal"
