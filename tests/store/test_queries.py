"""The SQL: the schema that migrations make, and what its queries do in the life of a run."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import psycopg
import pytest

from shoal.errors import ConflictError
from shoal.store import postgres, sqlite
from shoal.store.queries import MIGRATIONS, QUERIES, schema_file, statements
from shoal.store.store import Store, Write, open_store
from tests.store.rows import issued, opened, run, secure_step, settled, token, use


def test_migrations_make_the_whole_schema_in_sqlite():
    def made(files: list[str]) -> Any:
        connection = sqlite3.connect(":memory:")
        for file in files:
            for statement in statements(file, types=sqlite.TYPES):
                connection.execute(statement)
        tables = connection.execute("SELECT type, name, tbl_name FROM sqlite_master ORDER BY type, name").fetchall()
        columns = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for _, name, _ in tables}
        connection.close()
        return tables, columns

    assert made(list(MIGRATIONS)) == made([schema_file("whole.sql")])


def test_migrations_make_the_whole_schema_in_postgres(postgres_url: str):
    asked = (
        "SELECT table_name, column_name, data_type, is_nullable, is_identity FROM information_schema.columns "
        "WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position",
        "SELECT regexp_replace(indexdef, ' ON [^ ]*[.]', ' ON ') FROM pg_indexes "
        "WHERE schemaname = current_schema() ORDER BY indexname",
    )

    def made(files: list[str]) -> Any:
        with psycopg.connect(postgres_url) as connection:
            for file in files:
                for statement in statements(file, types=postgres.TYPES):
                    connection.execute(statement)
            found = [connection.execute(question).fetchall() for question in asked]
            connection.rollback()
        return found

    whole = made([schema_file("whole.sql")])
    assert made(list(MIGRATIONS)) == whole
    assert len(whole[0]) > 50


@pytest.mark.parametrize("name", QUERIES)
def test_sqlite_prepares_every_query(name: str, sqlite_schema: sqlite3.Connection):
    sqlite_schema.execute(f"EXPLAIN {QUERIES[name].text}", dict.fromkeys(QUERIES[name].parameters))


def test_postgres_prepares_every_query(postgres_url: str):
    open_store(postgres_url).close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name, query in QUERIES.items():
            numbered = query.text
            for number, parameter in enumerate(sorted(query.parameters), 1):
                numbered = re.sub(f"(?<!:):{parameter}\\b", f"${number}", numbered)
            answer = connection.pgconn.prepare(name.encode(), numbered.encode())
            assert answer.status == psycopg.pq.ExecStatus.COMMAND_OK, (name, answer.error_message)


def test_every_query_is_one_statement_without_a_dialect():
    for query in QUERIES.values():
        assert ";" not in query.text and "::" not in query.text and "{" not in query.text
        assert query.text.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")


@pytest.fixture(scope="module")
def sqlite_schema():
    connection = sqlite3.connect(":memory:")
    for name, arguments, function in sqlite.HASHING:
        connection.create_function(name, arguments, function)
    for statement in statements(schema_file("whole.sql"), types=sqlite.TYPES):
        connection.execute(statement)
    yield connection
    connection.close()


def test_a_token_is_used_as_often_as_it_says_and_not_when_it_is_over(store: Store):
    store.write(token("t", uses=2)).result()
    assert isinstance(store.write(use("t", now=9.0)).exception(), ConflictError)  # it expires at 9
    store.write(use("t")).result()
    store.write(use("t")).result()
    assert isinstance(store.write(use("t")).exception(), ConflictError)
    store.write(Write("token_delete", {"hash": "t"}, wants=1)).result()
    assert store.read("tokens") == []


def test_no_two_clients_have_a_name_or_a_key(store: Store):
    def client(id: str, name: str, key: bytes) -> Write:
        return Write("client_add", {"id": id, "name": name, "public_key": key, "token_label": "", "enrolled": 1.0})

    store.write(client("1", "a", b"k1")).result()
    assert isinstance(store.write(client("2", "a", b"k2")).exception(), ConflictError)
    assert isinstance(store.write(client("2", "b", b"k1")).exception(), ConflictError)
    store.write(client("2", "b", b"k2")).result()
    assert [row["name"] for row in store.read("clients")] == ["a", "b"]
    store.write(Write("client_revoke", {"id": "2"}, wants=1)).result()
    store.write(Write("client_seen", {"id": "1", "now": 7.5}, wants=1)).result()
    assert [(row["status"], row["last_seen"]) for row in store.read("clients")] == [("active", 7.5), ("revoked", None)]
    assert isinstance(store.write(Write("client_revoke", {"id": "2"}, wants=1)).exception(), ConflictError)


def test_a_task_is_settled_once(store: Store):
    store.write(run(), opened(0), issued("a", 0)).result()
    store.write(settled("r-0-0-a")).result()
    assert isinstance(store.write(settled("r-0-0-a", "late")).exception(), ConflictError)
    assert store.read("task", id="r-0-0-a")[0]["status"] == "counted"
    assert isinstance(store.write(issued("a", 0)).exception(), ConflictError)


def test_a_round_closes_once_and_its_run_goes_on_by_one(store: Store):
    store.write(run(), opened(0)).result()
    closing = Write("round_closing", {"run": "r", "round": 0, "attempt": 0}, wants=1)
    given = {"run": "r", "round": 0, "attempt": 0, "closed": 5.0, "clients": 2, "metrics": "{}", "rejected": "{}"}
    advance = Write("run_advance", {"id": "r", "round": 1, "state": b"s", "model": b"m1", "updated": 5.0}, wants=1)
    store.write(closing).result()
    assert store.read("rounds", run="r")[0]["status"] == "closing"
    store.write(Write("round_close", given, wants=1), advance).result()
    again = store.write(Write("round_close", given, wants=1), advance)
    assert isinstance(again.exception(), ConflictError)
    assert isinstance(store.write(advance).exception(), ConflictError)
    (row,) = store.read("run", id="r")
    assert (row["round"], row["model"], row["state"]) == (1, b"m1", b"s")
    assert store.read("rounds", run="r")[0]["clients"] == 2


def test_open_tasks_are_those_issued_and_those_counted_that_no_closed_round_has(store: Store):
    tasks = [issued(client, 0, position=place) for place, client in enumerate("abcd")]
    store.write(run(), opened(0), *tasks, settled("r-0-0-a"), settled("r-0-0-b"), settled("r-0-0-c", "late")).result()

    def open_tasks() -> list[str]:
        return [row["client"] for row in store.read("tasks_open", run="r")]

    assert open_tasks() == ["a", "b", "d"]
    store.write(Write("task_sum", {"id": "r-0-0-a", "summed": 0}, wants=1)).result()
    assert open_tasks() == ["a", "b", "d"]  # its round is closing
    advance = {"id": "r", "round": 1, "state": b"s", "model": b"m1", "updated": 5.0}
    store.write(Write("run_advance", advance, wants=1)).result()
    assert open_tasks() == ["b", "d"]
    assert isinstance(
        store.write(Write("task_sum", {"id": "r-0-0-c", "summed": 0}, wants=1)).exception(), ConflictError
    )
    counts = {row["status"]: row["tasks"] for row in store.read("task_counts", run="r")}
    assert counts == {"counted": 2, "issued": 1, "late": 1}
    assert store.read("bytes_by_run") == [{"run": "r", "tasks": 2, "bytes": 200, "train_s": 1.0}]


def test_discarded_tasks_are_in_no_sum(store: Store):
    store.write(run(), opened(0), issued("a", 0), issued("b", 0), settled("r-0-0-a")).result()
    store.write(Write("tasks_discard", {"run": "r", "round": 0})).result()
    assert [row["client"] for row in store.read("tasks_open", run="r")] == ["b"]
    assert store.read("task", id="r-0-0-a")[0]["status"] == "counted"  # its verdict stays what it was


def test_the_task_that_a_state_comes_from_is_kept_for_each_client(store: Store):
    def release(client: str, task: str) -> Write:
        return Write("release", {"run": "r", "client": client, "task": task}, wants=1)

    store.write(release("a", "1"), release("b", "2"), release("a", "3")).result()
    assert {row["client"]: row["task"] for row in store.read("released", run="r")} == {"a": "3", "b": "2"}


def test_each_client_has_one_message_in_each_stage_of_a_secure_sum_and_a_stage_is_closed_once(store: Store):
    attempt = {"run": "r", "round": 0, "attempt": 0}
    opening = Write("secure_open", attempt | {"terms": b"t0"}, wants=1)
    store.write(run(), opening, secure_step("share", "b"), secure_step("share", "a", b"of a")).result()
    store.write(secure_step("advertise", "b"), secure_step("advertise", ""), secure_step("share", "")).result()
    for again in (opening, secure_step("share", "a", b"another"), secure_step("advertise", "")):
        assert isinstance(store.write(again).exception(), ConflictError)
    assert isinstance(store.write(secure_step("guess", "a")).exception(), ConflictError)
    assert [row["terms"] for row in store.read("secure_terms", **attempt)] == [b"t0"]
    rows = [(row["stage"], row["client"], row["message"]) for row in store.read("secure_steps", **attempt)]
    assert rows == [
        ("advertise", "", b"m"), ("advertise", "b", b"m"), ("share", "", b"m"), ("share", "a", b"of a"),
        ("share", "b", b"m"),
    ]  # fmt: skip
    assert store.read("secure_steps", **attempt | {"attempt": 1}) == []


def test_what_is_kept_of_secure_sums_is_forgotten_up_to_a_round(store: Store):
    store.write(run()).result()
    for round, attempt in ((0, 0), (1, 0), (1, 1), (2, 0)):
        at = {"run": "r", "round": round, "attempt": attempt}
        step = secure_step("answer", "a", round=round, attempt=attempt)
        store.write(Write("secure_open", at | {"terms": b"t"}), step).result()
    given = {"run": "r", "round": 1}
    store.write(Write("secure_forget", given, wants=3), Write("secure_steps_forget", given, wants=3)).result()
    assert store.read("secure_terms", run="r", round=1, attempt=1) == []
    assert len(store.read("secure_steps", run="r", round=2, attempt=0)) == 1
    assert len(store.read("secure_terms", run="r", round=2, attempt=0)) == 1
