"""Connections are cut, delayed and repeated, identities doubled, certificates and versions old: nothing is lost."""

from __future__ import annotations

import shutil

import pytest

from shoal.client.events import Away, Settled, Skewed
from tests.chaos.harness import Cluster
from tests.chaos.proxy import Proxy
from tests.chaos.serve import CLOCK
from tests.chaos.study import SITES


def through_a_bad_network(cluster: Cluster, seed: int) -> None:
    cluster.serve()
    with Proxy(cluster.port, seed) as proxy:
        cluster.join(url=f"https://127.0.0.1:{proxy.port}")
        cluster.wait_over(within_s=240)
        assert sum(proxy.fates.values()) >= 3
        cluster.leave()
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["large"], indirect=True)
def test_cut_uploads_and_downloads_are_taken_up_again(cluster):
    through_a_bad_network(cluster, 1)
    told = [event for events in cluster.events.values() for event in events]
    assert any(isinstance(event, Away) for event in told)
    assert {event.verdict for event in told if isinstance(event, Settled)} == {"counted"}


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
@pytest.mark.parametrize("cluster", ["large", "long"], indirect=True)
def test_networks_of_every_kind_lose_nothing(cluster, seed):
    through_a_bad_network(cluster, seed)


@pytest.mark.slow
def test_of_two_agents_with_one_identity_the_older_stops_and_says_why(cluster, tmp_path):
    cluster.serve()
    name, *others = SITES.names
    older = cluster.agent(name)
    older.wait_for("Connected")
    shutil.copytree(cluster.home(name), tmp_path / "copy")
    newer = cluster.agent(name, home=tmp_path / "copy")
    assert older.ended() == 1
    assert older.said("Stopped - stopped: another agent with this client's key said hello after this one") == 1
    cluster.join(*others)
    cluster.wait_over()
    assert newer.stop() == 0
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["long"], indirect=True)
def test_clocks_that_jump_change_nothing(cluster):
    cluster.join()
    for jump_s in ("3600", "-3600"):
        server = cluster.serve(**{CLOCK: jump_s})
        cluster.wait_round(2)
        server.kill()
    cluster.serve()
    cluster.wait_over()
    cluster.check()
    assert any(isinstance(event, Skewed) for event in cluster.events["c0"])
