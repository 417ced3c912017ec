"""A server deletes the blobs that no run needs, as long as the store is its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import StoreError
from shoal.server.coordinator import Coordinator
from shoal.store.blobs import Blobs
from shoal.store.store import Row, Store, Write, open_store


class TakenOver:
    """A store that another server writes to by now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str, /, **given: Any) -> list[Row]:
        return self._store.read(name, **given)

    def write(self, *writes: Write) -> Future[None]:
        refused: Future[None] = Future()
        refused.set_exception(StoreError("another server took over the store"))
        return refused

    def close(self) -> None:
        self._store.close()


@pytest.mark.parametrize("taken_over", [False, True])
def test_what_nobody_needs_is_deleted_by_the_server_that_has_the_store(tmp_path: Path, taken_over: bool):
    store: Store = open_store("memory:")
    blobs = Blobs(tmp_path)
    blobs.put_bytes(b"a result whose report never came, or another server's model")

    async def start() -> None:
        here = Coordinator(TakenOver(store) if taken_over else store, blobs, federation="hearts")
        await here.start()
        await here.stop()

    asyncio.run(start())
    assert bool(list(blobs.ids())) == taken_over
    store.close()
