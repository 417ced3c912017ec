"""The server is killed at every durable transition, and the run ends in the simulation's model."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shoal
from shoal.server.records import stored_of
from shoal.store.blob_store import open_blobs
from shoal.wire.blobs import blob_id
from tests.chaos.harness import Cluster, check_rows, owner_of

POINTS = (
    "commit-before", "commit-after", "blob-before", "blob-after", "effects-before", "effects-after", "result-on-disk",
    "result-counted", "model-on-disk", "round-closed",
)  # fmt: skip
"""Where a server can be killed by the environment: before and after each step that makes something durable."""
MASKED_POINTS = ("secure-message", "secure-stage")
"""Further ones in rounds of a plan with a secure sum: a message is asked to be made durable; the end of a stage is."""
NOISED_POINTS = ("release-before", "release-recorded")
"""Further ones in rounds of a plan with noise: before the ledger has the release, and before the noise is drawn."""


def test_every_point_of_the_server_is_tried():
    sources = Path(shoal.__file__).parent
    found = {
        name
        for part in ("server", "store")
        for file in (sources / part).glob("*.py")
        for name in re.findall(r'\bpoint\("([^"]+)"\)', file.read_text())
    }
    assert found == {*POINTS, *MASKED_POINTS, *NOISED_POINTS}


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["long"], indirect=True)
def test_a_server_killed_at_each_point_in_turn_loses_nothing(cluster):
    cluster.join()
    cluster.survive([f"{point}:{n % 3 + 1}" for n, point in enumerate(POINTS)])
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["masked"], indirect=True)
def test_a_server_killed_in_every_stage_of_secure_sums_goes_on_with_their_sessions(cluster):
    cluster.join()
    points = ["effects-after:3", "secure-message:2", "secure-stage:1", "commit-before:4", "secure-stage:2"]
    cluster.survive([*points, "result-on-disk:2", "result-counted:1", "secure-stage:3", "secure-message:9",
                     "secure-stage:4", "model-on-disk:1", "round-closed:1"])  # fmt: skip
    cluster.check()
    with cluster.opened() as store:
        (run,) = store.read("runs")
        history = store.read("rounds", run=run["id"])
        assert [row["attempt"] for row in history] == [0] * len(history)  # no session was begun in another's place


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["noised"], indirect=True)
def test_a_server_killed_around_a_release_has_it_in_the_ledger_and_draws_other_noise(cluster):
    cluster.join()
    rows, left = list[dict[str, Any]](), set[str]()
    for point in ("release-before", "release-recorded", "model-on-disk", "round-closed", "release-before"):
        assert cluster.serve(f"{point}:1").ended(within_s=240) == -signal.SIGKILL
        with cluster.opened() as store:
            (run,), before, rows = store.read("runs"), rows, store.read("ledger")
            blobs = open_blobs(cluster.blobs, folder=cluster.folder / "server" / "blobs", owner=owner_of(store))
        assert rows[: len(before)] == before
        assert {row["round"] for row in rows} >= set(range(run["round"]))  # whatever is released is in it
        if point == "round-closed":  # of the round that had a model already, with noise that went with its process
            assert left and blob_id(stored_of(run)[0]) not in left
        left = set(blobs.ids()) if point == "model-on-disk" else left
    cluster.serve()
    cluster.wait_over()
    assert cluster.server.stop() == 0
    with cluster.opened() as store:
        assert store.read("ledger")[: len(rows)] == rows
        assert [row["round"] for row in store.read("ledger")] == [0, 0, 0, 1, 2, 3]  # twice a process died after it
        check_rows(store, 4)


@pytest.mark.slow
def test_the_same_on_postgresql(tmp_path, database):
    with Cluster(tmp_path, "small", store=database.url()) as cluster:
        cluster.join()
        cluster.survive(["effects-after:3", "commit-before:6", "commit-after:4"])
        cluster.check()


@pytest.mark.slow
def test_a_secure_sum_on_postgresql(tmp_path, database):
    with Cluster(tmp_path, "masked", store=database.url()) as cluster:
        cluster.join()
        cluster.survive(["secure-message:5", "commit-before:6", "secure-stage:3", "commit-after:9"])
        cluster.check()


@pytest.mark.soak
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("plan", ["long", "large"])
@pytest.mark.parametrize("first", range(1, 6))
def test_at_each_point_at_other_times(tmp_path, request, store, plan, first):
    url = request.getfixturevalue("database").url() if store == "postgres" else None
    with Cluster(tmp_path, plan, store=url) as cluster:
        cluster.join()
        points = POINTS if plan == "long" else POINTS[first % 2 :: 4]
        cluster.survive([f"{point}:{first if plan == 'long' else 1 + first % 3}" for point in points])
        cluster.check()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("cluster", ["long", "masked"], indirect=True)
def test_kills_at_any_moment_lose_nothing(cluster, seed):
    random = np.random.default_rng(seed)
    cluster.join()
    for _ in range(6):
        cluster.serve()
        time.sleep(random.uniform(0, 1.5))
        cluster.server.kill()
    cluster.serve()
    cluster.wait_over()
    cluster.check()
