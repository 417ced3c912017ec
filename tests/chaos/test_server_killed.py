"""The server is killed at every durable transition, and the run ends in the simulation's model."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest

import shoal
from tests.chaos.harness import Cluster

POINTS = (
    "commit-before", "commit-after", "blob-before", "blob-after", "effects-before", "effects-after", "result-on-disk",
    "result-counted", "model-on-disk", "round-closed",
)  # fmt: skip
"""Where a server can be killed by the environment: before and after each step that makes something durable."""
MASKED_POINTS = ("secure-message", "secure-stage")
"""Further ones in rounds of a plan with a secure sum: a message is asked to be made durable; the end of a stage is."""


def test_every_point_of_the_server_is_tried():
    sources = Path(shoal.__file__).parent
    found = {
        name
        for part in ("server", "store")
        for file in (sources / part).glob("*.py")
        for name in re.findall(r'\bpoint\("([^"]+)"\)', file.read_text())
    }
    assert found == {*POINTS, *MASKED_POINTS}


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
