"""A store in a SQLite file, or in memory: one writer with group commit, readers beside it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from shoal.errors import ConflictError, StoreError
from shoal.store.durable import create
from shoal.store.faults import point
from shoal.store.pool import Alone, Pool
from shoal.store.queries import MIGRATIONS, QUERIES, checked, statements
from shoal.store.writer import Row, Transaction, Write, Writer

TYPES = {"blob": "BLOB", "serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "real": "REAL"}

HASHING = (
    ("convert_to", 2, lambda text, coding: text.encode(coding)),
    ("sha256", 1, lambda data: hashlib.sha256(data).digest()),
    ("encode", 2, lambda data, form: data.hex()),
)  # fmt: skip
"""PostgreSQL's functions by its names: the audit log's rows are chained where they are written, in one SQL for both."""

APPLICATION = 0x5368_6F61
"""In the header of a file that is ours."""

READERS = 8

MEMORY = "memory:"

UNFIT = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, OverflowError, UnicodeError)
"""What is raised for values that no column can hold."""

WHY = {
    sqlite3.SQLITE_FULL: "its disk is full; nothing of what was asked was done. Make room, and ask again",
    sqlite3.SQLITE_BUSY: "another program had it locked for too long; nothing was done. End it, and ask again",
    sqlite3.SQLITE_CORRUPT: "it is damaged. Restore a backup",
    sqlite3.SQLITE_NOTADB: "it is damaged, or no SQLite database. Restore a backup, or name another file",
    sqlite3.SQLITE_READONLY: "it cannot be written. Give this user the right to write to the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Name a file in a folder that is there and can be written",
    sqlite3.SQLITE_IOERR: "its disk failed to read or write. Look at the disk, then start the server again",
}


class SqliteStore:
    """A store in the file at a path; with None, in memory for as long as it is open.

    What another program has locked is waited for, `patience_s` long.
    """

    def __init__(self, path: Path | None, *, patience_s: float = 30.0) -> None:
        self._path, self._patience_s = path, patience_s
        self._lease = None if path is None else _leased(path)
        try:
            self._connection = self._opened()
            self._prepare()
        except sqlite3.Error as error:
            self._give_back()
            raise self._told(error) from error
        except StoreError:
            self._give_back()
            raise
        self._readers = Alone(self._connection) if path is None else Pool(self._opened, most=READERS)
        self._writer = Writer(self._commit_alone if path is None else self._commit)

    def write(self, *writes: Write) -> Future[None]:
        """One transaction, in the order of the calls; done when it is durable."""
        return self._writer.submit(writes)

    def read(self, name: str, /, **given: Any) -> list[Row]:
        """The rows of a named query."""
        query = checked(name, given, reads=True)
        try:
            with self._readers.taken() as connection:
                rows = connection.execute(query.text, given)
                names = [column[0] for column in rows.description]
                return [dict(zip(names, row, strict=True)) for row in rows]
        except sqlite3.Error as error:
            raise self._told(error) from error

    def close(self) -> None:
        """Ends after everything that was asked for is durable."""
        self._writer.close()
        self._readers.close()
        self._give_back()

    def _give_back(self) -> None:
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._lease is not None:
            self._lease.close()

    def _opened(self) -> sqlite3.Connection:
        place = ":memory:" if self._path is None else self._path
        connection = sqlite3.connect(
            place, timeout=self._patience_s, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            for name, arguments, function in HASHING:
                connection.create_function(name, arguments, function, deterministic=True)
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """Brings the schema to this version, all or nothing."""
        run = self._connection.execute
        (application,), (version,) = run("PRAGMA application_id").fetchone(), run("PRAGMA user_version").fetchone()
        (tables,) = run("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION:
            raise StoreError(f"{self._path} is a database of something else: name another file for the store")
        if version > len(MIGRATIONS):
            raise StoreError(
                f"the store at {self._path} was made by a newer Shoal (version {version} of its schema, this one knows "
                f"{len(MIGRATIONS)}): run that one, or restore the backup from before it"
            )
        run("PRAGMA journal_mode = WAL")
        run("BEGIN IMMEDIATE")
        for migration in MIGRATIONS[version:]:
            for statement in statements(migration, types=TYPES):
                run(statement)
        run(f"PRAGMA application_id = {APPLICATION}")
        run(f"PRAGMA user_version = {len(MIGRATIONS)}")
        run("COMMIT")

    def _commit_alone(self, group: Sequence[Transaction]) -> list[StoreError | None]:
        with self._readers.taken():
            return self._commit(group)

    def _commit(self, group: Sequence[Transaction]) -> list[StoreError | None]:
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            outcomes = [self._apply(transaction) for transaction in group]
            point("commit-before")
            run("COMMIT")
            point("commit-after")
        except BaseException as error:
            if self._connection.in_transaction:  # a full disk ends it without being asked
                run("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._told(error) from error
            raise
        return outcomes

    def _apply(self, transaction: Transaction) -> StoreError | None:
        """Does a transaction within the group's, or undoes it alone and says why."""
        run = self._connection.execute
        run("SAVEPOINT one")
        try:
            for write in transaction:
                changed = run(QUERIES[write.name].text, write.given).rowcount
                if write.wants is not None and changed != write.wants:
                    raise ConflictError(f"{write.name} was to change {write.wants} rows, and would change {changed}")
        except (ConflictError, sqlite3.IntegrityError, *UNFIT) as error:
            run("ROLLBACK TO one")
            run("RELEASE one")
            return refusal(error, conflicts=sqlite3.IntegrityError)
        run("RELEASE one")
        return None

    def _told(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        why = WHY.get(code, f"SQLite says {getattr(error, 'sqlite_errorname', type(error).__name__)}")
        return StoreError(f"the store at {self._path or MEMORY} cannot be used: {why}")


def refusal(error: Exception, *, conflicts: type[Exception]) -> StoreError:
    """Why a transaction was undone: a conflict, or values that the database cannot hold."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, conflicts):
        told: StoreError = ConflictError("a row met what was there first, or what the schema rules out")
    else:
        told = StoreError(f"a row was given a value that its column cannot hold ({type(error).__name__})")
    told.__cause__ = error
    return told


def _leased(path: Path) -> sqlite3.Connection:
    """A lock that a second server meets. The system gives it back however this process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = Path(f"{path.resolve()}.lock")  # one for all names that a file has by links
        for file in (path, held):
            create(file)  # else others could read what SQLite makes
        lease = sqlite3.connect(held, timeout=1.0, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"no store can be made at {path}: its folder cannot be written") from error
    try:
        lease.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lease.close()
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY:
            raise StoreError(f"no store can be opened at {path}: {path.name}.lock cannot be locked") from error
        raise StoreError(f"another server uses the store at {path}: stop it, or name another file") from None
    return lease
