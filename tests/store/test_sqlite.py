"""A SQLite store on a disk that fails, in a file that others hold, damaged, or of another version."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shoal.errors import StoreError
from shoal.store.queries import MIGRATIONS, statements
from shoal.store.sqlite import APPLICATION, TYPES, SqliteStore
from shoal.store.store import open_store
from tests.store.rows import audit, secure_step

FULL_DISK = """
import resource, sys
from pathlib import Path
from shoal.errors import StoreError
from shoal.store.sqlite import SqliteStore
from tests.store.rows import audit

store = SqliteStore(Path(sys.argv[1]))
for _ in range(3):
    store.write(audit("before")).result()
size = max(Path(sys.argv[1] + end).stat().st_size for end in ("", "-wal"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
failures = [store.write(audit("too much", detail="x" * 50_000)).exception() for _ in range(10)]
assert failures[0] is None and isinstance(failures[-1], StoreError), failures
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.write(audit("after")).result()
actions = [row["action"] for row in store.read("audit", after=0, limit=99)]
assert actions == ["before"] * 3 + ["too much"] * failures.count(None) + ["after"], actions
print(failures[-1])
store.close()
"""


def test_a_full_disk_fails_what_was_asked_and_the_store_goes_on_when_there_is_room(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "shoal.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be used: its disk" in done.stdout


def test_a_store_that_another_program_locked_is_waited_for(tmp_path: Path):
    path = tmp_path / "shoal.db"
    store = SqliteStore(path, patience_s=20)
    backup = sqlite3.connect(path, isolation_level=None)
    backup.execute("BEGIN IMMEDIATE")
    future = store.write(audit("waited"))
    with pytest.raises(TimeoutError):
        future.result(timeout=0.2)
    assert store.read("audit", after=0, limit=9) == []  # readers need not wait
    backup.execute("COMMIT")
    future.result()
    backup.close()
    store.close()


def test_a_store_that_stays_locked_says_so_and_goes_on_later(tmp_path: Path):
    path = tmp_path / "shoal.db"
    store = SqliteStore(path, patience_s=0.1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another program had it locked for too long"):
        store.write(audit("too early")).result()
    other.close()
    store.write(audit("later")).result()
    assert [row["action"] for row in store.read("audit", after=0, limit=9)] == ["later"]
    store.close()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0" * 9]
)
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes):
    path = tmp_path / "shoal.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        open_store(str(path))
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path: Path):
    path = tmp_path / "books.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE books (title TEXT)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(StoreError, match="a database of something else"):
        open_store(str(path))
    assert path.read_bytes() == content


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path):
    path = tmp_path / "shoal.db"
    open_store(str(path)).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="made by a newer Shoal"):
        open_store(str(path))


def test_a_store_of_an_older_version_keeps_its_rows_and_takes_new_ones(tmp_path: Path):
    path = tmp_path / "shoal.db"
    older = sqlite3.connect(path)
    for statement in statements(MIGRATIONS[0], types=TYPES):
        older.execute(statement)
    older.execute(f"PRAGMA application_id = {APPLICATION}")
    older.execute("PRAGMA user_version = 1")
    older.execute("INSERT INTO federation (id, name, created) VALUES (1, 'hearts', 2.0)")
    older.commit()
    older.close()
    store = open_store(str(path))
    assert store.read("federation") == [{"name": "hearts", "created": 2.0}]
    store.write(secure_step("advertise", "a")).result()
    store.close()
    open_store(str(path)).close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="its folder cannot be written"):
        open_store(str(tmp_path / "file" / "shoal.db"))


def test_an_address_that_means_no_store_is_told():
    with pytest.raises(StoreError, match="this one begins with mysql://"):
        open_store("mysql://somewhere/else")
    with pytest.raises(StoreError, match="sqlite:///absolute/path"):
        open_store("sqlite://relative.db")


def test_nobody_else_reads_a_store_and_every_name_of_it_is_one_store(tmp_path: Path):
    store = open_store(str(tmp_path / "shoal.db"))
    store.write(audit("there")).result()
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("shoal.db*")} == {0o600}
    (tmp_path / "link.db").symlink_to(tmp_path / "shoal.db")
    with pytest.raises(StoreError, match="another server"):
        open_store(str(tmp_path / "link.db"))
    store.close()


def test_a_store_that_could_not_be_opened_holds_nothing_back(tmp_path: Path):
    path = tmp_path / "shoal.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError):
        open_store(str(path))
    path.unlink()
    open_store(str(path)).close()


def test_readers_of_many_threads_share_a_few_connections(tmp_path: Path):
    store = open_store(str(tmp_path / "shoal.db"))
    store.write(audit("there")).result()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(store.read("audit_last")))) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 50
    store.close()
