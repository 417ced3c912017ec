"""A server whose blobs are in S3 is killed in open rounds, and S3 is away for a while: nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import s3
from tests.chaos.harness import Cluster


@pytest.fixture(scope="module")
def service() -> Iterator[s3.Service]:
    """A service that speaks S3."""
    with s3.running() as running:
        yield running


@pytest.fixture
def cluster(
    tmp_path: Path, service: s3.Service, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """A server whose blobs are in a bucket, and its sites."""
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    place = service.url(service.bucket())
    with Cluster(tmp_path, request.param, blobs=place, environment=s3.CREDENTIALS) as made:
        yield made


@pytest.mark.parametrize("cluster", ["small"], indirect=True)
def test_a_server_killed_in_an_open_round_ends_in_the_simulations_model(cluster):
    cluster.join()
    cluster.survive(["result-counted:2", "blob-after:4"])
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["large"], indirect=True)
def test_results_and_models_of_many_parts_survive_too(cluster):
    cluster.join()
    cluster.survive(["blob-before:3", "model-on-disk:1"])
    cluster.check()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["large"], indirect=True)
def test_an_s3_that_is_away_for_a_while_is_waited_for(cluster, service):
    cluster.serve()
    cluster.join()
    cluster.wait_round(1)
    os.kill(service.pid, signal.SIGSTOP)
    try:
        time.sleep(3.0)
        assert cluster.ask("GET", "/v1/runs/study")["round"] <= 2  # operators are answered meanwhile
    finally:
        os.kill(service.pid, signal.SIGCONT)
    cluster.wait_over()
    cluster.check()
