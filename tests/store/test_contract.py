"""What every store does, whichever database it is."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.errors import ConflictError, StoreError
from shoal.store.store import Store, Write, open_store
from tests.store.rows import audit, run, token, use

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def test_what_was_written_is_read_when_its_future_is_done(store: Store):
    store.write(audit("enroll"), audit("revoke")).result()
    rows = store.read("audit", after=0, limit=10)
    assert [row["action"] for row in rows] == ["enroll", "revoke"]
    assert store.read("audit_last")[0]["action"] == "revoke"
    assert store.read("audit", after=rows[0]["seq"], limit=10) == rows[1:]


def test_nothing_is_in_a_new_store(store: Store):
    for name in ("federation", "clients", "tokens", "runs", "audit_last", "bytes_by_run"):
        assert store.read(name) == []


def test_transactions_are_applied_in_the_order_of_the_calls(store: Store):
    futures = [store.write(audit(str(number))) for number in range(1000)]
    assert futures[-1].result() is None
    assert all(future.done() for future in futures)
    assert [row["action"] for row in store.read("audit", after=0, limit=2000)] == [str(n) for n in range(1000)]


def test_each_thread_finds_its_writes_in_its_order(store: Store):
    def write(thread: int) -> None:
        for future in [store.write(audit(str(n), actor=str(thread))) for n in range(100)]:
            future.result()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    rows = store.read("audit", after=0, limit=1000)
    assert len(rows) == 800
    for thread in range(8):
        assert [row["action"] for row in rows if row["actor"] == str(thread)] == [str(n) for n in range(100)]


def test_a_conflict_undoes_its_own_transaction_and_no_other(store: Store):
    store.write(token("t")).result()
    asked = [
        store.write(audit("before")),
        store.write(audit("first"), use("t")),
        store.write(audit("second"), use("t"), audit("third")),  # it is used up
        store.write(token("t"), audit("twice")),  # it is there already
        store.write(audit("after")),
    ]
    assert [type(future.exception()) for future in asked] == [
        type(None), type(None), ConflictError, ConflictError, type(None),
    ]  # fmt: skip
    assert [row["action"] for row in store.read("audit", after=0, limit=9)] == ["before", "first", "after"]
    assert store.read("token", hash="t")[0]["uses_left"] == 0


def test_a_write_without_a_wish_may_change_nothing(store: Store):
    store.write(Write("token_use", {"hash": "nobody's", "now": 0.0})).result()


def test_a_value_that_no_column_holds_fails_its_own_transaction_and_no_other(store: Store):
    asked = [store.write(audit("a")), store.write(audit("b", detail=object())), store.write(audit("c"))]
    assert asked[0].result() is None
    with pytest.raises(StoreError, match="cannot hold"):
        asked[1].result()
    assert asked[2].result() is None
    assert [row["action"] for row in store.read("audit", after=0, limit=9)] == ["a", "c"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(detail=TEXT, time=st.floats(allow_nan=False), data=st.binary(max_size=50), number=st.integers(0, 2**62))
def test_values_come_back_as_they_were_given(store: Store, detail: str, time: float, data: bytes, number: int):
    key = f"{next(UNIQUE)}"
    store.write(
        audit(key, detail=detail, time=time),
        token(key, uses=number),
        Write(
            "client_add",
            {"id": key, "name": key, "public_key": data + key.encode(), "token_label": "", "enrolled": 0.0},
        ),
    ).result()
    last = store.read("audit_last")[0]
    assert (last["detail"], last["time"]) == (detail, time)
    assert store.read("token", hash=key)[0]["uses_left"] == number
    client = store.read("client", id=key)[0]
    assert (client["public_key"], client["last_seen"]) == (data + key.encode(), None)


UNIQUE = itertools.count()


def test_readers_see_whole_transactions_while_others_are_written(store: Store):
    over, seen = threading.Event(), []

    def read() -> None:
        while not over.is_set():
            seen.append(len(store.read("tokens")))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    asked = [store.write(token(f"{n}a"), token(f"{n}b")) for n in range(300)]
    for future in asked:
        future.result()
    over.set()
    for reader in readers:
        reader.join()
    assert all(number % 2 == 0 for number in seen)
    assert len(store.read("tokens")) == 600


def test_ten_thousand_writes_are_quick_enough_to_test(store: Store):
    store.write(token("t", uses=10_000)).result()
    for future in [store.write(use("t")) for _ in range(10_000)]:
        future.result()
    assert store.read("token", hash="t")[0]["uses_left"] == 0
    with pytest.raises(ConflictError):
        store.write(use("t")).result()


def test_an_asked_write_cannot_be_cancelled(store: Store):
    future = store.write(audit("done"))
    assert not future.cancel()
    future.result()


def test_closing_waits_for_what_was_asked(lasting_url: str):
    store = open_store(lasting_url)
    asked = [store.write(audit(str(number))) for number in range(300)]
    store.close()
    assert all(future.done() and future.exception() is None for future in asked)
    with pytest.raises(StoreError, match="closed"):
        store.write(audit("late"))
    store.close()
    again = open_store(lasting_url)
    assert len(again.read("audit", after=0, limit=1000)) == 300
    again.close()


def test_a_second_server_on_the_same_store_is_refused(lasting_url: str):
    store = open_store(lasting_url)
    with pytest.raises(StoreError, match="another server uses the store"):
        open_store(lasting_url)
    store.write(run()).result()
    store.close()
    after = open_store(lasting_url)
    assert [row["id"] for row in after.read("runs")] == ["r"]
    after.close()


def test_a_query_that_is_not_there_is_refused_at_once(store: Store):
    with pytest.raises(StoreError, match="no query that writes is named 'tokens'"):
        Write("tokens")
    with pytest.raises(StoreError, match="no query that reads is named 'token_use'"):
        store.read("token_use", hash="t", now=0.0)
    with pytest.raises(StoreError, match="token_use takes hash, now; it was given hash"):
        Write("token_use", {"hash": "t"})
    with pytest.raises(StoreError, match="federation takes nothing; it was given id"):
        store.read("federation", id=1)
