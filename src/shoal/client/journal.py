"""The journal of an agent: each task it took and how far it is, so that a restart goes on from there."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import msgspec

from shoal.errors import StoreError
from shoal.store.blobs import Blobs
from shoal.store.faults import point as crash_point
from shoal.wire.blobs import blob_id
from shoal.wire.codec import decode, encode
from shoal.wire.messages import Manifest, RunInfo, Task

VERSION = 1
KEPT = 1000
"""So many tasks that are settled stay in the journal."""
ABANDONED_S = 7 * 86_400.0
"""A download that nobody went on with for so long is removed."""

Stage = Literal["taken", "trained", "settled"]


@dataclass(frozen=True)
class Entry:
    """A task in the journal: taken, or trained, when its `result` is a blob on the disk, or settled.

    `begun` says how often its work was begun; `state` is the blob of what the client remembers after it.
    """

    message: Task
    stage: Stage
    begun: int
    result: Manifest | None
    state: str | None
    train_s: float
    verdict: str


class Journal:
    """A journal in a file, and the blobs that it names: models, results and states. Threads may use it.

    What a method wrote is on the disk when it returns; StoreError if it is not. `point` is told before and after each
    change, so that a test can end the process there.
    """

    def __init__(self, path: str | Path, blobs: Blobs, *, point: Callable[[str], None] = crash_point) -> None:
        self._path, self.blobs, self._point, self._lock = Path(path), blobs, point, threading.RLock()
        with self._told(), ExitStack() as opened:
            self._connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            opened.callback(self._connection.close)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._prepare()
            self._path.chmod(0o600)
            opened.pop_all()  # it stays open

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreError(f"the journal {self._path} is of a newer Shoal: use that one")
        if version == 0:
            schema = files("shoal.client").joinpath("journal.sql").read_text("utf-8")
            self._connection.executescript(f"BEGIN;\n{schema}\nPRAGMA user_version = {VERSION};\nCOMMIT;")

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def learn(self, info: RunInfo) -> None:
        """Keeps what the server said of a run."""
        with self._change("learned") as do:
            do("INSERT INTO runs (run, info) VALUES (?, ?) ON CONFLICT (run) DO UPDATE SET info = excluded.info",
               info.run, encode(info))  # fmt: skip

    def runs(self) -> list[RunInfo]:
        """What was said of runs."""
        return [decode(info, RunInfo) for (info,) in self._read("SELECT info FROM runs ORDER BY run")]

    def prune(self) -> None:
        """Drops the runs that no open task is of, which a server tells of again, and what came of blobs long ago."""
        self.blobs.sweep(older_s=ABANDONED_S)
        with self._change("pruned") as do:
            do("DELETE FROM runs WHERE run NOT IN (SELECT run FROM tasks WHERE stage <> 'settled')")

    def take(self, task: Task) -> None:
        """Takes a task, once, or again if it came to nothing here. Its model is kept as a blob if it came with it."""
        with self._change("taken") as do:
            if task.inline is not None:
                self._keep(task.model, task.inline)
            do("INSERT INTO tasks (task, run, message, stage) VALUES (?, ?, ?, 'taken') "
               "ON CONFLICT (task) DO UPDATE SET stage = 'taken', begun = 0 "
               "WHERE stage = 'settled' AND verdict <> 'counted'",
               task.task, task.run, encode(msgspec.structs.replace(task, inline=None)))  # fmt: skip
            if task.state_of is not None:  # older states are not asked for any more
                do("UPDATE tasks SET state = NULL WHERE run = ? AND seq < (SELECT seq FROM tasks WHERE task = ?)",
                   task.run, task.state_of)  # fmt: skip

    def begin(self, task: str) -> None:
        """Notes that a task's work begins, however it may end."""
        with self._change("begun") as do:
            do("UPDATE tasks SET begun = begun + 1 WHERE task = ?", task)

    def trained(self, task: str, *, result: bytes, coding: str, state: bytes | None, train_s: float) -> Manifest:
        """Keeps what a task's work gave: from now on it is not done again."""
        with self._change("trained") as do:
            manifest = self.blobs.put_bytes(result, coding=coding)
            remembered = None if state is None else blob_id(self.blobs.put_bytes(state))
            do("UPDATE tasks SET stage = 'trained', result = ?, state = ?, train_s = ? "
               "WHERE task = ? AND stage = 'taken'",
               encode(manifest), remembered, train_s, task)  # fmt: skip
        return manifest

    def settle(self, task: str, verdict: str) -> None:
        """Notes what became of a task, and removes what nobody will ask for any more."""
        with self._change("settled") as do:
            do("UPDATE tasks SET stage = 'settled', verdict = ?, result = NULL, "
               "state = CASE WHEN ? = 'counted' THEN state END WHERE task = ?", verdict, verdict, task)  # fmt: skip
            do("DELETE FROM tasks WHERE stage = 'settled' AND state IS NULL "
               "AND seq < (SELECT max(seq) FROM tasks) - ?", KEPT)  # fmt: skip
        self.sweep()

    def entry(self, task: str) -> Entry | None:
        """A task, if it was ever taken."""
        found = self._entries("task = ?", task)
        return found[0] if found else None

    def open(self) -> list[Entry]:
        """The tasks that are not settled, in the order in which they were taken."""
        return self._entries("stage <> 'settled'")

    def sweep(self) -> None:
        """Removes the blobs that no task needs."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        kept = {state for (state,) in self._read("SELECT state FROM tasks WHERE state IS NOT NULL")}
        for entry in self.open():
            kept.add(blob_id(entry.message.model))
            if entry.result is not None:
                kept.add(blob_id(entry.result))
        for blob in list(self.blobs.ids()):
            if blob not in kept:
                self.blobs.delete(blob)

    def _keep(self, manifest: Manifest, data: bytes) -> None:
        """Makes a blob of bytes that came with a message; WireError if they are not those of its manifest."""
        if not self.blobs.has(blob_id(manifest)):
            incoming = self.blobs.incoming(blob_id(manifest), manifest)
            for number in incoming.missing():
                start = number * manifest.part_bytes
                incoming.put(number, data[start : start + manifest.part_bytes])
            incoming.commit()

    def _entries(self, where: str, *given: Any) -> list[Entry]:
        rows = self._read(
            f"SELECT message, stage, begun, result, state, train_s, verdict FROM tasks WHERE {where} ORDER BY seq",
            *given,
        )
        return [
            Entry(decode(message, Task), stage, begun, result and decode(result, Manifest), state, train_s, verdict)
            for message, stage, begun, result, state, train_s, verdict in rows
        ]

    def _read(self, statement: str, *given: Any) -> list[Any]:
        with self._lock, self._told():
            return self._connection.execute(statement, given).fetchall()

    @contextmanager
    def _change(self, what: str) -> Generator[Any]:
        """A transaction; `do` runs a statement in it."""
        with self._lock, self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield lambda statement, *given: self._connection.execute(statement, given)
                self._point(f"client-{what}-before")
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._point(f"client-{what}-after")

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"the journal {self._path} cannot be used: {error}") from error
