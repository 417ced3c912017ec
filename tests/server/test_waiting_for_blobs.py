"""Blobs may be far away: nothing that asks for one is on the event loop, where everybody would wait with it."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import shoal
from shoal import models
from shoal.rounds.rules import Rules
from shoal.server.app import App
from shoal.server.certificates import Tls
from shoal.server.coordinator import Coordinator
from shoal.server.operators import Operators
from shoal.server.serving import Place, Serving
from shoal.store.blobs import Blobs
from shoal.store.incoming import Incoming
from shoal.store.object_file import ObjectFile
from shoal.store.store import open_store
from shoal.testing import Fleet
from shoal.wire.blobs import blob_id
from shoal.wire.messages import Manifest
from tests.conftest import classification
from tests.server.conftest import Server
from tests.server.here import Here


def off_the_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise AssertionError("a blob was asked for on the event loop")


class Far:
    """Blobs in a folder that may be asked for in threads only."""

    def __init__(self, folder: Path) -> None:
        self.near, self.folder, self.at_once = Blobs(folder), folder, 3
        self.asked: set[str] = set()
        self.delete, self.scratch = self.near.delete, self.near.scratch

    def _ask(self, name: str) -> Callable[..., Any]:
        off_the_loop()
        self.asked.add(name)
        return getattr(self.near, name)

    def has(self, blob: str) -> bool:
        return self._ask("has")(blob)

    def size(self, blob: str) -> int:
        return self._ask("size")(blob)

    def read(self, blob: str, *, offset: int, length: int) -> bytes:
        return self._ask("read")(blob, offset=offset, length=length)

    def put_bytes(self, data: bytes) -> Manifest:
        return self._ask("put_bytes")(data)

    def ids(self) -> list[str]:
        return list(self._ask("ids")())

    def sweep(self, *, older_s: float) -> int:
        return self._ask("sweep")(older_s=older_s)

    def open(self, blob: str) -> BinaryIO:
        self._ask("open")
        return ObjectFile.buffered(
            lambda start, length: io.BytesIO(self.read(blob, offset=start, length=length)), size=self.size(blob)
        )

    def incoming(self, key: str, manifest: Manifest) -> Incoming:
        incoming = self.near.incoming(key, manifest)
        settle = incoming._settle

        def far(path: Path) -> None:
            off_the_loop()
            self.asked.add("settle")
            settle(path)

        incoming._settle = far
        return incoming


def test_a_run_brings_and_reads_blobs_in_threads(tmp_path: Path):
    sites = classification(sizes=(16, 16, 16))
    plan = shoal.Plan(shoal.FedAvg(models.mlp(4, hidden=(200, 200)), batch_size=8), rounds=2)
    blobs = Far(tmp_path / "blobs")
    store = open_store("memory:")

    async def run() -> np.ndarray:
        here = Coordinator(store, blobs, federation="far")
        await here.start([plan])
        fleet = Fleet(here, plan, {name: sites[name] for name in sites.names})
        name = await here.submit(plan, name="run", rules=Rules(at_least=len(sites.names)), seed=3)
        fleet.start()
        assert (await asyncio.wait_for(here.until_over(name), 120)).status == "completed"
        state = await here.state(name)
        await here.model(name)
        await fleet.stop()
        await here.stop()
        return np.asarray(state.vector)

    found = asyncio.run(run())
    wanted = shoal.simulate(plan, sites, seed=3, runtime="local", progress="off").vector
    assert np.array_equal(found, wanted)
    assert blobs.asked == {"has", "size", "read", "put_bytes", "ids", "sweep", "open", "settle"}


def test_a_download_is_read_in_threads(tmp_path: Path, tls: Tls):
    store = open_store("memory:")
    here = Here(store, Far(tmp_path / "blobs"))
    app = App(here, operators=Operators.of(tmp_path))
    serving = Serving(app, Place(port=0, tls=tls), start=here.start)
    data = os.urandom(9_000_000)
    blob = blob_id(here.blobs.near.put_bytes(data))
    here.may_read = lambda client, asked: asked == blob
    with serving:
        client = Server(here, app, serving, tls, tmp_path).client()
        assert client.ask("GET", f"/v1/blobs/{blob}").data == data
        assert client.ask("GET", f"/v1/blobs/{blob}", range="bytes=8388600-8388700").data == data[8388600:8388701]
    store.close()
