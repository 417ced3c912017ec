"""A store of rows: writes that are durable when their future is done, and reads that see them."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from shoal.errors import StoreError
from shoal.store.postgres import PostgresStore
from shoal.store.sqlite import MEMORY, SqliteStore
from shoal.store.writer import Row as Row
from shoal.store.writer import Write as Write


class Store(Protocol):
    """What SQLite, PostgreSQL and memory do alike."""

    def write(self, *writes: Write) -> Future[None]:
        """Asks for one transaction of these writes. Transactions are applied in the order of the calls.

        The future is done when it is durable. It ends in a ConflictError if a write met what was there first, and
        then nothing of the transaction is done; in another StoreError if the store could not do it.
        """
        ...

    def read(self, name: str, /, **given: Any) -> list[Row]:
        """The rows of a named query: it sees every transaction whose future was done. From any thread."""
        ...

    def close(self) -> None:
        """Waits until everything that was asked for is durable, and gives the store back."""
        ...


def open_store(url: str) -> Store:
    """The store at "sqlite:///absolute/path.db" or a path, at "postgresql://...", or one in "memory:".

    It is made if it is not there, and brought up to this version. StoreError if it cannot be used: damaged, of a newer
    Shoal, or in use by another server.

    >>> store = open_store("memory:")
    >>> store.write(Write("federation_add", {"name": "hearts", "created": 0.0}, wants=1)).result()
    >>> store.read("federation")
    [{'name': 'hearts', 'created': 0.0}]
    >>> store.close()
    """
    scheme, separator, rest = url.partition("://")
    if url == MEMORY:
        return SqliteStore(None)
    if not separator:
        return SqliteStore(Path(url))
    if scheme == "sqlite" and rest.startswith("/"):
        return SqliteStore(Path(rest[1:] if rest[2:3] == ":" else rest))  # sqlite:///C:/shoal.db on Windows
    if scheme in ("postgresql", "postgres"):
        return PostgresStore(url)
    raise StoreError(
        "a store is a path, sqlite:///absolute/path.db, postgresql://user@host/database or memory:; "
        f"this one begins with {scheme}://"
    )
