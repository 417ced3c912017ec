"""PostgreSQL that restarts, connections that are cut, and a second server that takes a store over."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from shoal.errors import ConflictError, StoreError
from shoal.store.postgres import PostgresStore
from shoal.store.store import open_store
from tests.postgres import GIVEN, Postgres
from tests.store.cutting import cut_between
from tests.store.rows import audit, token, use


@pytest.fixture(autouse=True)
def own_cluster() -> None:
    if os.environ.get(GIVEN):
        pytest.skip("restarts PostgreSQL, and does that to none but its own")


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="shoal-cut-"))
    yield path
    shutil.rmtree(path)


def test_a_restart_in_the_middle_of_a_run_loses_nothing_and_counts_nothing_twice(cluster: Postgres, postgres_url: str):
    store = open_store(postgres_url)
    store.write(token("t", uses=10**6)).result()
    asked: list[Future[None]] = []
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            asked.append(store.write(audit(str(len(asked))), use("t")))
            time.sleep(0.0005)

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(2):
        time.sleep(0.3)
        cluster.stop()
        time.sleep(0.1)
        cluster.start()
    time.sleep(0.3)
    over.set()
    thread.join()
    for future in asked:
        future.result()
    assert [row["action"] for row in store.read("audit", after=0, limit=10**6)] == [str(n) for n in range(len(asked))]
    assert store.read("token", hash="t")[0]["uses_left"] == 10**6 - len(asked)
    store.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_whose_answer_is_lost_is_done_exactly_once(
    cluster: Postgres, postgres_url: str, folder: Path, when: str
):
    url = postgres_url.replace(str(cluster.folder).replace("/", "%2F"), str(folder))
    with cut_between(folder, cluster.folder) as cut, closing(open_store(url)) as store:
        store.write(token("t", uses=9)).result()
        cut.at_commit(when)
        asked = [store.write(use("t")), store.write(token("t")), store.write(audit("said"))]
        assert [type(future.exception()) for future in asked] == [type(None), ConflictError, type(None)]
        assert cut.cuts == 1
        assert store.read("token", hash="t")[0]["uses_left"] == 8
        assert len(store.read("audit", after=0, limit=9)) == 1


def test_a_commit_that_nobody_can_ask_about_is_told_to_be_unknown(cluster: Postgres, postgres_url: str, folder: Path):
    url = postgres_url.replace(str(cluster.folder).replace("/", "%2F"), str(folder))
    with cut_between(folder, cluster.folder) as cut, closing(PostgresStore(url, patience_s=0.2)) as store:
        cut.at_commit("after")
        cut.refuse(folder)
        with pytest.raises(StoreError, match="before it said whether the last group is done"):
            store.write(token("t")).result()
        with pytest.raises(StoreError, match=r"lets this user in$"):
            store.write(token("u")).result()
    with closing(open_store(postgres_url)) as store:
        assert [row["hash"] for row in store.read("tokens")] == ["t"]


def test_readers_are_given_a_new_connection_after_a_restart(cluster: Postgres, postgres_url: str):
    store = open_store(postgres_url)
    store.write(token("t")).result()
    assert len(store.read("tokens")) == 1
    cluster.stop()
    cluster.start()
    assert len(store.read("tokens")) == 1
    store.close()


def test_a_database_that_stays_away_is_told_and_writes_go_on_when_it_is_back(cluster: Postgres, postgres_url: str):
    store = PostgresStore(postgres_url, patience_s=0.3)
    cluster.stop()
    try:
        with pytest.raises(StoreError, match="cannot be reached"):
            store.write(token("t")).result()
        with pytest.raises(StoreError, match="cannot be reached"):
            store.read("tokens")
    finally:
        cluster.start()
    store.write(token("t")).result()
    assert len(store.read("tokens")) == 1
    store.close()


def test_a_server_whose_store_was_taken_over_writes_no_more(postgres_url: str):
    store = open_store(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("UPDATE shoal_store SET epoch = epoch + 1")
    for _ in range(2):
        with pytest.raises(StoreError, match="another server took over the store"):
            store.write(token("t")).result()
    assert store.read("tokens") == []
    store.close()


def test_two_schemas_of_a_database_hold_two_stores(postgres_url: str, cluster: Postgres):
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA beside")
    first, second = open_store(postgres_url), open_store(f"{cluster.url()}&options=-csearch_path%3Dbeside")
    first.write(token("t")).result()
    assert second.read("tokens") == []
    first.close()
    second.close()


def test_a_store_of_a_newer_version_is_refused(postgres_url: str):
    open_store(postgres_url).close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("UPDATE shoal_store SET version = 99")
    with pytest.raises(StoreError, match="made by a newer Shoal"):
        open_store(postgres_url)


def test_no_message_holds_a_password():
    with pytest.raises(StoreError) as told:
        PostgresStore("postgresql://u:secret@127.0.0.1:1/d?connect_timeout=1", patience_s=0.1)
    assert "secret" not in str(told.value) and "127.0.0.1/d" in str(told.value)


def test_a_table_that_another_program_locked_is_told(postgres_url: str):
    store = PostgresStore(postgres_url, patience_s=0.2)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="another program had it locked for too long"):
            store.write(token("t")).result()
    store.write(token("t")).result()
    store.close()
