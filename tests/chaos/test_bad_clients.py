"""Clients that send what they should not: each gets its answer, the round goes on, and memory stays bounded."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import socket
import ssl
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from shoal.algorithms import enter
from shoal.client.connection import Connection
from shoal.client.enrolment import enrol
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.work import prepared
from shoal.errors import ServerError
from shoal.key import Key
from shoal.turns import take_turn
from shoal.wire.blobs import manifest_of
from shoal.wire.codec import decode, encode
from shoal.wire.messages import CheckIn, Manifest, Missing, Orders, Result, Upload, Verdict
from shoal.wire.payloads import call_of, pack_payload
from tests.chaos.study import BAD, PLANS, columns
from tests.server.caller import Caller, problem, told

PLAN = PLANS["besieged"]
CHANGES = {
    "bad-nan": lambda payload: dataclasses.replace(payload, value=payload.value * np.float32(np.nan)),
    "bad-shape": lambda payload: dataclasses.replace(payload, value=np.zeros(3, np.float32)),
    "bad-dtype": lambda payload: dataclasses.replace(payload, value=payload.value.astype(np.float64)),
    "bad-weight": lambda payload: dataclasses.replace(payload, weight=np.float32(-1e9)),
}


def connected(cluster, name):
    line = Line(cluster.url, authority=Path(cluster.authority).read_text())
    home = Home(cluster.home(name))
    with Ledger(home.folder / "ledger.db") as ledger:
        identity = enrol(home, line, token=f"token of {name}", name=name, ledger=ledger)
    return Connection(line, identity, private_key=home.private_key)


def bad_result(name, task):
    """What a bad client sends for its task."""
    if name == "bad-bytes":
        return secrets.token_bytes(500)
    algorithm = PLAN.algorithm
    data = prepared(algorithm, columns("c0"), name=name)
    payload, _ = take_turn(algorithm, call_of(algorithm, task.inline), data, enter(algorithm), Key(*task.key))
    return pack_payload(CHANGES[name](payload))


def memory_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["besieged"], indirect=True)
def test_bad_results_are_rejected_and_the_round_goes_on(cluster):
    server = cluster.serve()
    bad = {name: connected(cluster, name) for name in BAD}
    for connection in bad.values():
        assert connection.check_in(CheckIn()).runs
        connection.check_in(CheckIn())
    before = memory_bytes(server.pid)
    cluster.join()
    tasks = {}
    for name, connection in bad.items():
        while not (orders := connection.check_in(CheckIn(wait_s=5.0))).tasks:
            pass
        (tasks[name],) = orders.tasks
    for name, connection in bad.items():
        other = tasks[BAD[BAD.index(name) - 1]].task
        good = Result(manifest=manifest_of(b"x"), inline=b"x")
        for path, code in ((other, "not-yours"), (f"{other[:12]}-9-9-9", "task-unknown"), ("nothing", "task-unknown")):
            with pytest.raises(ServerError) as refused:
                connection.call("POST", f"/v1/tasks/{path}/report", encode(good), kind="report")
            assert refused.value.code == code
        data = bad_result(name, tasks[name])
        report = encode(Result(manifest=manifest_of(data), inline=data))
        path = f"/v1/tasks/{tasks[name].task}/report"
        verdicts = {decode(connection.call("POST", path, report, kind="report"), Verdict) for _ in range(3)}
        (verdict,) = verdicts
        assert verdict.verdict == "rejected" and verdict.message
        connection.line.close()
    cluster.wait_over()
    assert memory_bytes(server.pid) < before + 150_000_000
    cluster.check()


def rude(cluster, name):
    """A client that speaks HTTP by itself, and has a task."""
    caller = Caller(cluster.url, cluster.authority, federation="wards")
    assert caller.enroll(name, token=f"token of {name}").status == 200
    assert caller.hello(boot=caller.info().boot).status == 200
    assert told(caller.ask("POST", "/v1/checkin", CheckIn()), Orders).runs
    told(caller.ask("POST", "/v1/checkin", CheckIn()), Orders)  # it knows the run now, and would take a task
    return caller


def given(caller):
    while not (orders := told(caller.ask("POST", "/v1/checkin", CheckIn(wait_s=5.0)), Orders)).tasks:
        pass
    return orders.tasks[0]


def slowly(cluster, stop):
    """Sixty connections that say a byte from time to time and never come to the point."""
    context = ssl.create_default_context(cafile=cluster.authority)
    with contextlib.ExitStack() as stack:
        connections = []
        for place in range(60):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", cluster.port), timeout=20))
            connections.append(stack.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1")))
            first = b"GET /v1/server HTTP/1.1\r\nx: " if place % 2 else (
                b"POST /v1/enroll HTTP/1.1\r\nhost: x\r\nshoal-version: 1\r\ncontent-length: 9000\r\n\r\n"
            )  # fmt: skip
            connections[-1].sendall(first)
        while not stop.wait(0.2):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b"y")


def endless(cluster):
    """A body that says it has two gigabytes, sent until the server will have no more; how much that was."""
    context, sent = ssl.create_default_context(cafile=cluster.authority), 0
    with (
        socket.create_connection(("127.0.0.1", cluster.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
        contextlib.suppress(OSError),
    ):
        secure.sendall(b"PUT /v1/tasks/x-1/parts/0 HTTP/1.1\r\nhost: x\r\nshoal-version: 1\r\n"
                       b"content-length: 2000000000\r\n\r\n")  # fmt: skip
        while sent < 2000:
            secure.sendall(b"x" * 1_000_000)
            sent += 1
    return sent


@pytest.mark.slow
@pytest.mark.parametrize("requests", [1500, pytest.param(10_000, marks=pytest.mark.soak)])
@pytest.mark.parametrize("cluster", ["besieged"], indirect=True)
def test_a_round_goes_on_under_hasty_endless_lying_and_slow_clients(cluster, requests):
    server = cluster.serve(SHOAL_CHAOS_RATE="20")
    callers = {name: rude(cluster, name) for name in BAD}
    before = memory_bytes(server.pid)
    cluster.join()
    tasks = {name: given(caller) for name, caller in callers.items()}
    stop = threading.Event()
    slow = threading.Thread(target=slowly, args=(cluster, stop))
    slow.start()
    hasty, liar = callers[BAD[0]], callers[BAD[1]]
    his = tasks[BAD[1]].task
    answers = Counter(hasty.ask("POST", "/v1/checkin", CheckIn(busy=True)).status for _ in range(requests))
    assert set(answers) == {200, 429} and answers[429] > requests / 4
    assert endless(cluster) < 2000
    told(liar.ask("POST", f"/v1/tasks/{his}/upload", Upload(manifest=manifest_of(b"one thing was said"))), Missing)
    for other in (b"another was sent..", b"short", b"something that is longer than what was said"):
        assert problem(liar.ask("PUT", f"/v1/tasks/{his}/parts/0", other)) == "422 rejected"
    giant = Manifest(size_bytes=10**12, part_bytes=10**7, parts=(b"\0" * 32,) * 10**5, raw_bytes=10**12)
    offer = callers.pop(BAD[2]).ask("POST", f"/v1/tasks/{tasks[BAD[2]].task}/upload", Upload(manifest=giant))
    assert told(offer, Verdict).verdict == "rejected"
    for name, caller in callers.items():
        data, task = bad_result(name, tasks[name]), tasks[name].task
        answer = caller.ask("POST", f"/v1/tasks/{task}/report", Result(manifest=manifest_of(data), inline=data))
        while answer.status == 429:
            time.sleep(float(answer.headers["retry-after"]))
            answer = caller.ask("POST", f"/v1/tasks/{task}/report", Result(manifest=manifest_of(data), inline=data))
        assert told(answer, Verdict).verdict == "rejected", name
    cluster.wait_over()
    assert memory_bytes(server.pid) < before + 150_000_000
    stop.set()
    slow.join()
    cluster.check()
