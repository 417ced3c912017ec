"""Ledgers: nothing in them can be changed unseen, a kill loses nothing, and others read while one writes."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.client.contents import contents
from shoal.client.ledger import COLUMNS, Entry, Head, Ledger, Traffic
from shoal.errors import SettingError, StoreError
from tests.client.files import held_open

NOON = datetime(2026, 11, 25, 12, 0).timestamp()


def filled(path, entries=5, now=lambda: NOON):
    """A ledger with some results in it."""
    ledger = Ledger(path, now=now)
    for n in range(entries):
        ledger.record("result", run="r1", run_name="heart", plan="ab" * 32, round=n, task=f"t{n}", bytes=56,
                      sha256="cd" * 32, detail="14 numbers")  # fmt: skip
    return ledger


def tampered(path, *statements):
    """Changes a ledger as somebody would who may write its file, triggers and all."""
    with sqlite3.connect(path) as connection:
        for name in ("entries_stay", "entries_remain", "entries_follow", "head_moves_on", "head_remains"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_what_was_recorded_is_there_in_order_and_chained(tmp_path):
    with filled(tmp_path / "l.db") as ledger:
        entries = list(ledger.entries())
        assert [entry.round for entry in entries] == [0, 1, 2, 3, 4]
        first = Entry(1, NOON, "result", "r1", "heart", "ab" * 32, 0, "t0", 56, "cd" * 32, "14 numbers", "", "")
        assert replace(entries[0], hash="") == first
        previous = ""
        for entry in entries:
            told = [getattr(entry, name) for name in COLUMNS if name != "hash"]
            assert entry.hash == hashlib.sha256(b"shoal ledger 1\0" + json.dumps(told).encode()).hexdigest()
            assert entry.previous == previous
            previous = entry.hash
        assert ledger.head() == Head(5, previous)
        assert ledger.verify() == ()
        assert [entry.seq for entry in ledger.entries(after=3)] == [4, 5]


def test_a_ledger_goes_on_where_it_was_and_only_its_owner_may_read_it(tmp_path):
    filled(tmp_path / "sub" / "l.db").close()
    with filled(tmp_path / "sub" / "l.db", 2) as ledger:
        assert ledger.head().seq == 7 and ledger.verify() == ()
    assert (tmp_path / "sub" / "l.db").stat().st_mode & 0o077 == 0


def test_a_verdict_is_an_entry_of_its_own(tmp_path):
    with filled(tmp_path / "l.db", 1) as ledger:
        ledger.verdict("t0", "counted", run="r1")
        last = list(ledger.entries())[-1]
        assert (last.kind, last.task, last.run, last.detail, last.bytes) == ("verdict", "t0", "r1", "counted", 0)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET bytes = 1",
        "UPDATE entries SET detail = 'x' WHERE seq = 5",
        "DELETE FROM entries",
        "DELETE FROM head",
        "UPDATE head SET seq = 1",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries WHERE seq = 3",
        f"INSERT INTO entries SELECT 9, {', '.join(COLUMNS[1:])} FROM entries WHERE seq = 1",
    ],
)
def test_the_file_refuses_every_change_but_a_next_entry(tmp_path, statement):
    filled(tmp_path / "l.db").close()
    connection = sqlite3.connect(tmp_path / "l.db")
    with pytest.raises(sqlite3.IntegrityError, match="only added to"):
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "seq"])
def test_a_changed_entry_is_found_whatever_was_changed(tmp_path, column):
    filled(tmp_path / "l.db").close()
    value = "3" if column in ("time", "round", "bytes") else "'x'"
    tampered(tmp_path / "l.db", f"UPDATE entries SET {column} = {value} WHERE seq = 2")
    with Ledger(tmp_path / "l.db") as ledger:
        assert "entry 2 was changed" in ledger.verify()


@pytest.mark.parametrize("seq", [1, 3, 5])
def test_a_missing_entry_is_found_wherever_it_was(tmp_path, seq):
    filled(tmp_path / "l.db").close()
    tampered(tmp_path / "l.db", f"DELETE FROM entries WHERE seq = {seq}")
    with Ledger(tmp_path / "l.db") as ledger:
        said = f"entries {seq} to {seq} are missing" if seq < 5 else "the last of 5 entries are missing"
        assert said in ledger.verify()


def test_an_entry_that_was_taken_out_and_the_rest_moved_up_is_found(tmp_path):
    filled(tmp_path / "l.db").close()
    tampered(tmp_path / "l.db", "DELETE FROM entries WHERE seq = 3", "UPDATE entries SET seq = seq - 1 WHERE seq > 3",
             "UPDATE head SET seq = 4")  # fmt: skip
    with Ledger(tmp_path / "l.db") as ledger:
        assert {"entry 3 does not follow the one before it", "entry 3 was changed"} <= set(ledger.verify())


@given(order=st.permutations(range(1, 5)).filter(lambda order: list(order) != [1, 2, 3, 4]))
def test_reordered_entries_are_found(order, tmp_path_factory):
    path = tmp_path_factory.mktemp("ledger") / "l.db"
    filled(path, 4).close()
    moves = [f"UPDATE entries SET seq = {-new} WHERE seq = {old}" for new, old in enumerate(order, 1)]
    tampered(path, *moves, "UPDATE entries SET seq = -seq")
    with Ledger(path) as ledger:
        assert ledger.verify()


def test_a_whole_other_ledger_is_found_by_a_head_that_was_noted(tmp_path):
    with filled(tmp_path / "l.db") as ledger:
        noted = ledger.head()
        ledger.record("decline", task="t9", detail="policy")
        assert ledger.verify(known=noted) == () == ledger.verify(known=Head(0, ""))
    with filled(tmp_path / "other.db", 6, itertools.count(NOON).__next__) as other:
        assert other.verify() == ()
        assert other.verify(known=noted) == ("the ledger is not the one whose head was noted",)


KILLED = """
import sys
from shoal.client.ledger import Ledger
ledger = Ledger(sys.argv[1])
for n in range(10_000):
    ledger.traffic("checkin", 100)
    ledger.record("result", task=f"t{n}", bytes=n)
    print(n, flush=True)
"""


def test_a_kill_loses_no_entry_and_no_count_that_was_told(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "l.db")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as told:
        for _ in range(20):
            last = int(told.readline())
        with Ledger.existing(tmp_path / "l.db") as reader:  # while the other one writes
            assert reader.head().seq > last and reader.verify() == ()
        process.send_signal(signal.SIGKILL)
        last = max([last, *map(int, told.read().split())])
    process.wait()
    with Ledger(tmp_path / "l.db") as ledger:
        entries = list(ledger.entries())
        assert len(entries) in (last + 1, last + 2)
        assert ledger.verify() == ()
        (traffic,) = ledger.traffic_by_day()
        assert traffic.messages >= last + 1 and traffic.bytes == 100 * traffic.messages
        ledger.record("result", task="after")
        assert ledger.verify() == ()


def test_threads_and_two_openings_write_one_chain(tmp_path):
    with Ledger(tmp_path / "l.db") as one, Ledger(tmp_path / "l.db") as two:

        def write(ledger):
            for _ in range(20):
                ledger.record("result")
                ledger.traffic("checkin", 1)

        threads = [threading.Thread(target=write, args=(ledger,)) for ledger in (one, one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.head().seq == 60 and one.verify() == () == two.verify()
        assert [row.messages for row in one.traffic_by_day()] == [60]


def test_traffic_is_counted_by_day_and_kind(tmp_path):
    hours = iter(range(0, 1000, 10))
    with Ledger(tmp_path / "l.db", now=lambda: NOON + 3600 * next(hours)) as ledger:
        for kind, size in (("checkin", 80), ("session", 200), ("checkin", 81)):
            ledger.traffic(kind, size)
        assert ledger.traffic_by_day() == (
            Traffic("2026-11-25", "checkin", 1, 80),
            Traffic("2026-11-25", "session", 1, 200),
            Traffic("2026-11-26", "checkin", 1, 81),
        )


def test_the_past_is_of_today_but_for_the_runs(tmp_path):
    times = [NOON - 86400, NOON - 3600, NOON - 60, NOON - 50, NOON - 40]
    with Ledger(tmp_path / "l.db", now=iter(times).__next__) as ledger:
        ledger.record("result", run="r1", task="t1", bytes=10)
        ledger.record("result", run="r2", task="t2", bytes=20)
        ledger.record("result", run="r2", task="t2", bytes=20)  # sent again
        ledger.record("result", run="r2", task="t3", bytes=30)
        ledger.record("decline", run="r3", task="t4")
        past = ledger.past(datetime.fromtimestamp(NOON), study_file=True)
        assert (past.rounds_today, past.bytes_today, past.runs) == (2, 70, frozenset({"r1", "r2"}))
        assert past.study_file and past.now == datetime.fromtimestamp(NOON)
        assert ledger.past(datetime.fromtimestamp(NOON) + timedelta(days=1)).rounds_today == 0


def test_exports_hold_every_column_of_every_entry(tmp_path):
    with filled(tmp_path / "l.db") as ledger:
        entries = list(ledger.entries())
        lines = ledger.export(tmp_path / "l.jsonl").read_text().splitlines()
        assert [Entry(**json.loads(line)) for line in lines] == entries
        with ledger.export(tmp_path / "l.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [list(row) for row in rows] == [list(COLUMNS)] * 5
        assert [row["hash"] for row in rows] == [entry.hash for entry in entries]
        with pytest.raises(StoreError, match="nothing is overwritten"):
            ledger.export(tmp_path / "l.csv")
        with pytest.raises(SettingError, match=r"file.jsonl or a file.csv, not to l.xml"):
            ledger.export(tmp_path / "l.xml")


def test_a_ledger_that_cannot_be_used_is_told(tmp_path):
    with pytest.raises(StoreError, match="there is no ledger"):
        Ledger.existing(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("no database" * 1000)
    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        Ledger(tmp_path / "text.db")
    filled(tmp_path / "new.db", 0).close()
    connection = sqlite3.connect(tmp_path / "new.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="of a newer Shoal") as caught:
        Ledger(tmp_path / "new.db")
    assert caught.tb and not held_open(tmp_path)
    filled(tmp_path / "headless.db", 1).close()
    tampered(tmp_path / "headless.db", "DELETE FROM head")
    with Ledger(tmp_path / "headless.db") as ledger, pytest.raises(StoreError, match="it has no head"):
        ledger.record("result")


def test_an_entry_that_could_not_be_written_is_an_error_and_not_there(tmp_path):
    with filled(tmp_path / "l.db", 1) as ledger:
        pages = ledger._durable.execute("PRAGMA page_count").fetchone()[0]
        ledger._durable.execute(f"PRAGMA max_page_count = {pages}")  # what a full disk says
        with pytest.raises(StoreError, match="full"):
            for _ in range(1000):
                ledger.record("result", detail="x" * 500)
        assert ledger.verify() == () and ledger.head().seq == len(list(ledger.entries()))


def test_an_entry_of_another_kind_is_refused(tmp_path):
    with filled(tmp_path / "l.db", 0) as ledger, pytest.raises(SettingError, match="one of enroll, decline, result"):
        ledger.record("gossip")


def test_contents_say_how_many_numbers_leave_and_through_what():
    model = shoal.models.logistic(13)
    plain = shoal.Plan(shoal.FedAvg(model), rounds=1)
    assert contents(plain).startswith("14 numbers (float32) for Weigh(cap=")
    noisy = shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(1.0, clients=10)
    assert contents(shoal.Plan(shoal.FedAvg(model, aggregation=noisy), rounds=1)) == (
        "14 numbers (float32) for Clip(norm=1.0) >> PlainSum() >> Gaussian(multiplier=1.0, clients=10), "
        "nothing beside them"
    )
