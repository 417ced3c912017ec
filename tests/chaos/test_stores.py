"""The server's disk is full, its database locked, stopped or slow: the run waits, and goes on where it was."""

from __future__ import annotations

import signal
import sqlite3
import time

import pytest

from shoal.client.events import Away
from tests.chaos.harness import Cluster
from tests.chaos.serve import MOST_FILE


def heard(cluster: Cluster, text: str) -> bool:
    """Whether an agent was told something by the server."""
    return any(isinstance(event, Away) and text in str(event) for events in cluster.events.values() for event in events)


def wait_for(true, *, within_s: float = 60.0, or_show: Cluster | None = None) -> None:
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, or_show and ([*map(str, or_show.events.items())], or_show.log()[-20:])
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["large"], indirect=True)
def test_a_disk_without_room_for_results_is_told_of_and_waited_for(cluster):
    server = cluster.serve(**{MOST_FILE: "900000"})
    cluster.join()
    wait_for(lambda: heard(cluster, "disk is full"), or_show=cluster)
    server.send(signal.SIGUSR1)
    cluster.wait_over()
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["long"], indirect=True)
def test_a_disk_without_room_for_rows_is_waited_for(cluster):
    server = cluster.serve(**{MOST_FILE: "200000"})
    cluster.join()
    wait_for(lambda: any("StoreError" in line.get("error", "") for line in cluster.log()))
    time.sleep(1.0)
    server.send(signal.SIGUSR1)
    cluster.wait_over()
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["long"], indirect=True)
def test_a_database_that_another_program_locks_is_waited_for(cluster):
    cluster.serve()
    cluster.join()
    for round in (1, 3):
        cluster.wait_round(round)
        other = sqlite3.connect(cluster.store, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(1.5)
        before = cluster.run()["round"]
        assert before <= round + 1
        other.execute("ROLLBACK")
        other.close()
    cluster.wait_over()
    cluster.check()


@pytest.mark.slow
def test_a_postgresql_that_is_restarted_in_mid_round_is_waited_for(tmp_path, database):
    with Cluster(tmp_path, "long", store=database.url()) as cluster:
        cluster.serve()
        cluster.join()
        for round in (1, 4):
            cluster.wait_round(round)
            database.stop()
            time.sleep(0.5)
            database.start()
        cluster.wait_over()
        cluster.check()


@pytest.mark.soak
@pytest.mark.parametrize("away_s", [0.0, 5.0, 35.0])
def test_a_postgresql_that_is_away_for_longer_is_waited_for(tmp_path, database, away_s):
    with Cluster(tmp_path, "long", store=database.url()) as cluster:
        cluster.serve()
        cluster.join()
        for round in (1, 3, 6):
            cluster.wait_round(round)
            database.stop()
            time.sleep(away_s)
            database.start()
        cluster.wait_over(within_s=240)
        cluster.check()
