"""A client is killed in each of its states; its next start goes on from there, and counts once."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

import shoal
from shoal.client.ledger import Ledger
from tests.chaos.study import SITES

CHANGES = ("learned", "pruned", "taken", "begun", "trained", "settled", "sent")
POINTS = tuple(f"client-{change}-{when}" for change in CHANGES for when in ("before", "after"))
DONE = POINTS[POINTS.index("client-trained-after") :]
"""After these a task's result is on the client's disk."""
SHORT = ("client-taken-after", "client-begun-after", "client-trained-after", "client-sent-before", "client-sent-after")


def test_every_point_of_the_client_is_known():
    sources = Path(shoal.__file__).parent / "client"
    text = "".join(file.read_text() for file in sources.glob("*.py"))
    changes = re.findall(r'self\._change\("(\w+)"\)', text)
    direct = re.findall(r'_point\("([^"]+)"\)', text)
    assert {f"client-{change}-{when}" for change in changes for when in ("before", "after")} | set(direct) == set(
        POINTS
    )


def survives(cluster, points):
    """One site's agent dies at each of these points, each time in a later round, and is started again."""
    cluster.serve()
    killed, *others = SITES.names
    cluster.join(*others)
    lives = []
    for point in points:
        agent = cluster.agent(killed, crash=point)
        assert agent.ended() == -signal.SIGKILL, point
        lives.append((point, agent.lines))
    last = cluster.agent(killed)
    cluster.wait_over()
    assert last.stop() == 0
    lives.append(("", last.lines))
    return lives


def told(lines, kind):
    return [line.split()[1] for line in lines if line.split()[0] == kind]


def check_done_once(cluster, lives):
    """What was done is not done again, and what left is in the ledger once for each task that counted."""
    for place, (point, lines) in enumerate(lives):
        took = told(lines, "Took")
        if point.partition(":")[0] in DONE and took:
            assert all(took[-1] not in told(later, "Trained") for _, later in lives[place + 1 :]), point
    with Ledger.existing(cluster.home(SITES.names[0]) / "ledger.db") as ledger:
        entries = list(ledger.entries())
    results = {entry.task: entry.sha256 for entry in entries if entry.kind == "result"}
    assert all(results[entry.task] == entry.sha256 for entry in entries if entry.kind == "result")
    counted = [entry.task for entry in entries if (entry.kind, entry.detail) == ("verdict", "counted")]
    assert set(counted) == set(results)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["long"], indirect=True)
def test_a_client_killed_in_its_states_counts_once_a_round(cluster):
    lives = survives(cluster, SHORT)
    cluster.check()
    check_done_once(cluster, lives)


@pytest.mark.soak
@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.parametrize("cluster", ["long", "large"], indirect=True)
@pytest.mark.parametrize("half", [0, 1])
def test_a_client_killed_in_all_its_states_counts_once_a_round(cluster, time, half):
    lives = survives(cluster, [f"{point}:{time}" for point in POINTS[half :: 2 if cluster.plan == "long" else 6]])
    cluster.check()
    check_done_once(cluster, lives)
