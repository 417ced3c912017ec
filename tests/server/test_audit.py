"""The audit log: a chain that says where it was broken. Stores of every kind make the same one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from shoal.errors import ConflictError, StoreError
from shoal.server.audit import NOTHING, Trail, audit_writes, verify
from shoal.store.store import Store, Write, open_store


def fill(store: Store, rows: int) -> Trail:
    for number in range(rows):
        store.write(*audit_writes("operator", "pause", f"run-{number}", 'größer: "x" \\ \'', time=number / 3)).result()
    return verify(store)


def test_an_empty_log_holds_together() -> None:
    store = open_store("memory:")
    assert verify(store) == Trail(0, NOTHING)
    store.close()


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "shoal.db"))
    first = fill(store, 3)
    store.close()
    store = open_store(str(tmp_path / "shoal.db"))
    second = fill(store, 2)
    rows = store.read("audit", after=0, limit=10)
    assert (first.rows, second.rows) == (3, 5)
    assert rows[3]["previous"] == rows[2]["hash"] == first.hash
    store.close()


def test_a_transaction_that_fails_leaves_no_gap() -> None:
    store = open_store("memory:")
    impossible = Write("token_use", {"hash": "nobody's", "now": 0.0}, wants=1)
    written = [
        store.write(*audit_writes("a", "one", "x", time=1)),
        store.write(*audit_writes("a", "two", "x", time=2), impossible),
        store.write(*audit_writes("a", "three", "x", time=3), *audit_writes("a", "four", "x", time=4)),
    ]
    with pytest.raises(ConflictError):
        written[1].result()
    written[2].result()
    assert verify(store).rows == 3
    assert [row["action"] for row in store.read("audit", after=0, limit=10)] == ["one", "three", "four"]
    store.close()


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit SET actor = 'somebody' WHERE seq = 3",
        "UPDATE audit SET time = time + 1e-6 WHERE seq = 3",
        "UPDATE audit SET detail = '' WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 3",
        "DELETE FROM audit WHERE seq = 1",
        "UPDATE audit SET seq = CASE seq WHEN 2 THEN 30 ELSE seq END",
        "UPDATE audit SET hash = '0' WHERE seq = 3",
    ],
)
def test_whoever_changes_a_row_is_found_out(tmp_path: Path, tampering: str) -> None:
    path = tmp_path / "shoal.db"
    store = open_store(str(path))
    fill(store, 5)
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute(tampering)
    connection.close()
    store = open_store(str(path))
    with pytest.raises(StoreError, match="does not hold together at row"):
        verify(store)
    store.close()
