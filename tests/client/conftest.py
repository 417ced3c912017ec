"""A server of the tests, and a site that enrolled there."""

from __future__ import annotations

import pytest

from tests.client.server import Server
from tests.client.site import Site


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def url(server):
    with server.serving() as url:
        yield url


@pytest.fixture
def site(tmp_path, url):
    return Site(tmp_path / "home", url)
