"""Clients that send what they should not: each gets its answer, the round goes on, and memory stays bounded."""

from __future__ import annotations

import dataclasses
import secrets
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
from shoal.wire.messages import CheckIn, Result, Verdict
from shoal.wire.payloads import call_of, pack_payload
from tests.chaos.study import BAD, PLANS, columns

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
