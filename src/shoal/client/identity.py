"""A client's home: the folder with its key, with who it is and where it enrolled, and with its agent's files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.errors import StoreError
from shoal.whole_file import write_whole
from shoal.wire.signing import new_key

VERSION = 1


@dataclass(frozen=True)
class Identity:
    """Who a client is: its id and name in a federation, the server it enrolled with, and whom it trusts there.

    `authority` is the certificate (PEM) that the server's must come from; None trusts what the system trusts.
    """

    server: str
    federation: str
    client: str
    name: str
    authority: str | None = None


class Home:
    """A folder that belongs to one client. It is made, for its owner alone, if it is not there.

    >>> import tempfile
    >>> home = Home(Path(tempfile.mkdtemp()) / "ward-3")
    >>> home.identity is None, len(home.private_key)
    (True, 32)
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be a client's home: {error.strerror}") from error

    @cached_property
    def private_key(self) -> bytes:
        """The Ed25519 key, 32 bytes, from `key.pem`; made here the first time. It never leaves this folder."""
        path = self.folder / "key.pem"
        if not path.exists():
            self._write(path, _to_pem(new_key()))
        return _from_pem(path)

    @property
    def identity(self) -> Identity | None:
        """Who the client is; None before it enrolled. StoreError if `identity.json` cannot be read."""
        path = self.folder / "identity.json"
        try:
            said: dict[str, Any] = json.loads(path.read_bytes())
            version = said.pop("version")
            if version == VERSION and said.keys() == {field.name for field in fields(Identity)}:
                return Identity(**said)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{path} cannot be read: put back a copy, or enrol anew in another folder") from error
        raise StoreError(f"{path} is of another version of Shoal: use the version that wrote it, or enrol anew")

    def remember(self, identity: Identity) -> None:
        """Writes who the client is."""
        said = {"version": VERSION, **asdict(identity)}
        self._write(self.folder / "identity.json", json.dumps(said, indent=1).encode() + b"\n")

    @contextmanager
    def held(self) -> Generator[None]:
        """The home for one agent alone; StoreError at once if another agent has it."""
        try:
            file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be locked: {error.strerror}") from error
        try:
            try:
                _lock(file)
            except OSError as error:
                raise StoreError(
                    f"another agent works in {self.folder}: stop it first, or give this one a home and an identity "
                    "of its own"
                ) from error
            yield
        finally:
            os.close(file)  # which unlocks it, as the end of the process does

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_whole(path, data, mode=0o600)
        except OSError as error:
            raise StoreError(f"{path} could not be written: {error.strerror}") from error


def _to_pem(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _from_pem(path: Path) -> bytes:
    try:
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise StoreError(f"{path} can be read by others than its owner: run  chmod 600 '{path}'")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} is not a key that can be read: put back a copy, or enrol anew elsewhere") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"{path} holds a key of another kind than Ed25519: enrol with a key that was made here")
    return key.private_bytes_raw()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        """Locks a file for this process, or raises OSError at once."""
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        """Locks a file for this process, or raises OSError at once."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
