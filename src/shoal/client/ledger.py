"""The ledger of a site: every thing that ever left it because of its data, in a file that is only added to.

Each entry holds the hash of the one before it, so that a changed, a missing or a moved one is found. Whoever can
write the file can also write a whole other one: a head that was noted elsewhere shows that, too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

from shoal.client.policy import Past
from shoal.errors import SettingError, StoreError
from shoal.whole_file import write_whole

Kind = Literal["enroll", "decline", "result", "keys", "verdict"]

VERSION = 1


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: when what was about to leave, for which task, and what it contained, in words.

    `time` is seconds since 1970, `bytes` and `sha256` are of what left; `previous` is the hash of the entry before.
    """

    seq: int
    time: float
    kind: str
    run: str
    run_name: str
    plan: str
    round: int | None
    task: str
    bytes: int
    sha256: str
    detail: str
    previous: str
    hash: str

    def hashed(self) -> str:
        """The hash that the entry should have: SHA-256 over everything else in it, as JSON."""
        told = [value for name, value in asdict(self).items() if name != "hash"]
        return hashlib.sha256(b"shoal ledger 1\0" + json.dumps(told).encode()).hexdigest()


RUNS = """
WITH RECURSIVE runs (run) AS (
    SELECT min(run) FROM entries WHERE kind = 'result'
    UNION ALL
    SELECT (SELECT min(run) FROM entries WHERE kind = 'result' AND run > runs.run) FROM runs WHERE run IS NOT NULL
)
SELECT run FROM runs WHERE run IS NOT NULL
"""
"""Every run with a result, by a step through the index for each run and not for each entry."""

COLUMNS = tuple(f.name for f in fields(Entry))


@dataclass(frozen=True)
class Head:
    """How many entries there are, and the hash of the last: noted elsewhere, it vouches for all of them."""

    seq: int
    hash: str


@dataclass(frozen=True)
class Traffic:
    """How many messages of a kind were sent on a day (local), and their bytes."""

    day: str
    kind: str
    messages: int
    bytes: int


class Ledger:
    """A ledger in a file, made if it is not there. It can be read while an agent writes it, and used by threads.

    An entry is on the disk when `record` or `verdict` returns; a `StoreError` means that it is not, and then nothing
    may leave.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder, "ledger.db")) as ledger:
    ...     _ = ledger.record("result", run="r1", run_name="heart", round=0, task="t1", bytes=56, detail="14 numbers")
    ...     _ = ledger.verdict("t1", "counted", run="r1")
    ...     [(entry.kind, entry.detail) for entry in ledger.entries()], ledger.verify()
    ([('result', '14 numbers'), ('verdict', 'counted')], ())
    """

    def __init__(self, path: str | Path, *, now: Callable[[], float] = time.time) -> None:
        self._path, self._now, self._lock = Path(path), now, threading.Lock()
        with self._told(), ExitStack() as opened:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._durable, self._quick = (opened.enter_context(closing(self._connect())) for _ in range(2))
            self._durable.execute("PRAGMA synchronous = FULL")
            self._quick.execute("PRAGMA synchronous = NORMAL")
            self._prepare()
            opened.pop_all()  # they stay open

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> None:
        (version,) = self._durable.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise StoreError(f"the ledger {self._path} is of a newer Shoal: use that one")
        if version == VERSION:
            return
        self._path.chmod(0o600)
        self._durable.execute("PRAGMA journal_mode = WAL")
        schema = files("shoal.client").joinpath("ledger.sql").read_text("utf-8")
        self._durable.executescript(f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {VERSION};\nCOMMIT;")

    @staticmethod
    def existing(path: str | Path) -> Ledger:
        """The ledger of a file that is there; StoreError if none is."""
        if not Path(path).is_file():
            raise StoreError(f"there is no ledger {path}")
        return Ledger(path)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._durable.close()
        self._quick.close()

    def record(
        self,
        kind: Kind,
        *,
        run: str = "",
        run_name: str = "",
        plan: str = "",
        round: int | None = None,
        task: str = "",
        bytes: int = 0,
        sha256: str = "",
        detail: str = "",
    ) -> Entry:
        """Writes down what is about to leave, and returns when that is on the disk."""
        if kind not in get_args(Kind):
            raise SettingError(f"an entry's kind is one of {', '.join(get_args(Kind))}, not {kind!r}")
        with self._lock, self._told(), self._transaction(self._durable):
            last = self._last()
            entry = Entry(last.seq + 1, float(self._now()), kind, run, run_name, plan, round, task, bytes, sha256,
                          detail, last.hash, "")  # fmt: skip
            entry = replace(entry, hash=entry.hashed())
            marks = ", ".join(f":{name}" for name in COLUMNS)
            self._durable.execute(f"INSERT INTO entries ({', '.join(COLUMNS)}) VALUES ({marks})", asdict(entry))
            self._durable.execute("UPDATE head SET seq = :seq, hash = :hash", {"seq": entry.seq, "hash": entry.hash})
        return entry

    def verdict(self, task: str, verdict: str, *, run: str = "") -> Entry:
        """Writes down what the server made of a task's result."""
        return self.record("verdict", run=run, task=task, detail=verdict)

    def traffic(self, kind: str, bytes: int) -> None:
        """Counts a message that was sent; the counts outlive the process, not a power cut."""
        day = datetime.fromtimestamp(self._now()).date().isoformat()
        with self._lock, self._told():
            self._quick.execute(
                "INSERT INTO traffic (day, kind, messages, bytes) VALUES (?, ?, 1, ?) ON CONFLICT (day, kind) "
                "DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes",
                (day, kind, bytes),
            )

    def traffic_by_day(self) -> tuple[Traffic, ...]:
        """Messages by day and kind."""
        with self._lock, self._told():
            rows = self._quick.execute("SELECT day, kind, messages, bytes FROM traffic ORDER BY day, kind").fetchall()
        return tuple(Traffic(*row) for row in rows)

    def entries(self, *, after: int = 0) -> Iterator[Entry]:
        """Every entry in order, from the one after a number."""
        select = f"SELECT {', '.join(COLUMNS)} FROM entries WHERE seq > ? ORDER BY seq LIMIT 1000"
        while True:
            with self._lock, self._told():
                rows = self._durable.execute(select, (after,)).fetchall()
            yield from (Entry(*row) for row in rows)
            if not rows:
                return
            after = rows[-1][0]

    def head(self) -> Head:
        """How many entries there are and the last one's hash."""
        with self._lock, self._told():
            return self._last()

    def _last(self) -> Head:
        row = self._durable.execute("SELECT seq, hash FROM head").fetchone()
        if row is None:
            raise StoreError(f"the ledger {self._path} is damaged: it has no head")
        return Head(*row)

    def past(self, now: datetime, *, study_file: bool = False, sites: Collection[str] = ()) -> Past:
        """What a policy's judgement needs to know, of the day (local) so far; the rest of it is passed on."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        with self._lock, self._told():
            rounds, sent = self._durable.execute(
                "SELECT count(DISTINCT task) FILTER (WHERE kind = 'result'), coalesce(sum(bytes), 0) FROM entries "
                "WHERE kind IN ('keys', 'result') AND time >= ?",
                (midnight,),
            ).fetchone()
            runs = self._durable.execute(RUNS).fetchall()
        known = frozenset(run for (run,) in runs)
        return Past(now, rounds, sent, known, study_file=study_file, sites=frozenset(sites))

    def verify(self, *, known: Head | None = None) -> tuple[str, ...]:
        """What is wrong with the ledger, in sentences: nothing, if it is whole and goes on from a `known` head."""
        found: list[str] = []
        seq, previous, noted = 0, "", known is None or known.seq == 0
        head = self.head()
        for entry in self.entries():
            if entry.seq > head.seq:
                break  # added while this was reading
            if entry.seq != seq + 1:
                found.append(f"entries {seq + 1} to {entry.seq - 1} are missing")
            elif entry.previous != previous:
                found.append(f"entry {entry.seq} does not follow the one before it")
            if entry.hash != entry.hashed():
                found.append(f"entry {entry.seq} was changed")
            noted = noted or (known is not None and (entry.seq, entry.hash) == (known.seq, known.hash))
            seq, previous = entry.seq, entry.hash
        if (seq, previous) != (head.seq, head.hash):
            found.append(f"the last of {head.seq} entries are missing" if seq < head.seq else "the head was changed")
        if not noted:
            found.append("the ledger is not the one whose head was noted")
        return tuple(found)

    def export(self, path: str | Path) -> Path:
        """Writes all entries to a file that is not there yet: JSON lines (.jsonl) or CSV (.csv)."""
        path = Path(path)
        if path.suffix not in (".jsonl", ".csv"):
            raise SettingError(f"a ledger is exported to a file.jsonl or a file.csv, not to {path.name}")
        if path.exists():
            raise StoreError(f"{path} exists already, and nothing is overwritten: name a new file")
        text = io.StringIO()
        if path.suffix == ".jsonl":
            text.writelines(json.dumps(asdict(entry)) + "\n" for entry in self.entries())
        else:
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(entry) for entry in self.entries())
        write_whole(path, text.getvalue().encode(), mode=0o600)
        return path

    @contextmanager
    def _told(self) -> Generator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"the ledger {self._path} cannot be used: {error}") from error

    @contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Generator[None]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
