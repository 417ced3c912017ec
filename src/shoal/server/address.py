"""Where a server on this machine is, as its folder says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from shoal.errors import SettingError


@dataclass(frozen=True)
class Address:
    """How operators on the server's own machine reach it: `server.json` in its folder.

    `host` is whom the certificate is for, and `certificate` the file that is trusted, None without TLS.
    """

    url: str
    host: str
    certificate: str | None

    @staticmethod
    def of(folder: Path) -> Address:
        """The address of the server that last served from a folder; SettingError if there is none."""
        path = folder / "server.json"
        try:
            return Address(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise SettingError(
                f"no server has served from {folder}: start one with  shoal serve study.py --folder {folder}, "
                "or name a server with --server"
            ) from None
        except (OSError, ValueError, TypeError):
            raise SettingError(f"{path} cannot be read: start the server again, which writes it") from None
