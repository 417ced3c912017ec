"""Servers over TLS on this machine, and clients that call them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shoal.server.app import App
from shoal.server.certificates import Tls, development_certificates
from shoal.server.limits import Limits
from shoal.server.operators import Operators
from shoal.server.serving import Place, Serving
from shoal.store.blobs import Blobs
from shoal.store.store import Store, open_store
from tests.server.caller import Caller
from tests.server.here import Here

NAMES = itertools.count()


@dataclass
class Server:
    """A server that runs, and everything around it."""

    here: Here
    app: App
    serving: Serving
    tls: Tls
    folder: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.serving.url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def caller(self, key: bytes | None = None) -> Caller:
        return Caller(self.url, str(self.tls.authority), key=key)

    def client(self) -> Caller:
        """A client of a name of its own, with a session."""
        return self.caller().ready(f"site-{next(NAMES)}")


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate for this machine."""
    return development_certificates(tmp_path_factory.mktemp("tls"), ["127.0.0.1", "localhost"])


Serve = Callable[..., Server]


@pytest.fixture(scope="module")
def serve(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts servers that end with the test's file."""
    running: list[tuple[Serving, Store]] = []

    def start(limits: Limits | None = None) -> Server:
        folder = tmp_path_factory.mktemp("server")
        store = open_store("memory:")
        here = Here(store, Blobs(folder / "blobs"))
        app = App(here, operators=Operators.of(folder), limits=limits)
        serving = Serving(app, Place(port=0, tls=tls, drain_s=5.0), start=here.start)
        serving.__enter__()
        running.append((serving, store))
        tokens = {role: (folder / f"{role}.token").read_text().strip() for role in ("operator", "viewer")}
        return Server(here, app, serving, tls, folder, tokens)

    yield start
    for serving, store in running:
        serving.__exit__(None, None, None)
        store.close()


@pytest.fixture(scope="module")
def server(serve: Serve) -> Server:
    """One server for a test's file, with limits that only somebody in haste meets."""
    return serve(Limits(anonymous_rate=1000, client_rate=1000))
