"""Blobs that a run lets go of."""

import asyncio

import pytest

from shoal.server.services import Services
from shoal.store.blobs import Blobs
from shoal.store.store import open_store
from shoal.wire.blobs import blob_id


@pytest.fixture
def store():
    opened = open_store("memory:")
    yield opened
    opened.close()


def services(store, blobs, needed):
    return Services(
        store, blobs, wake=lambda name: None, wake_all=lambda: None, changed=lambda run, status: None,
        needed=lambda: needed,
    )  # fmt: skip


def test_many_blobs_that_are_let_go_hold_up_nobody(store, tmp_path):
    async def turns():
        here = services(store, blobs, ())
        made = [blobs.put_bytes(b"blob %d" % number) for number in range(40)]
        here.let_go(*made)
        others = 0
        while any(blobs.has(blob_id(manifest)) for manifest in made):
            await asyncio.sleep(0)
            others += 1
        here.close()
        return others

    blobs = Blobs(tmp_path)
    assert asyncio.run(turns()) >= 10


def test_a_blob_that_is_needed_again_before_its_turn_stays(store, tmp_path):
    async def again():
        needed = []
        here = services(store, blobs, needed)
        made = blobs.put_bytes(b"the same model as before")
        here.let_go(made)
        needed.append(made)
        await asyncio.sleep(0.05)
        here.close()
        return made

    blobs = Blobs(tmp_path)
    assert blobs.has(blob_id(asyncio.run(again())))


def test_what_was_let_go_is_gone_when_the_server_has_stopped(store, tmp_path):
    async def stop():
        here = services(store, blobs, ())
        made = [blobs.put_bytes(b"blob %d" % number) for number in range(40)]
        here.let_go(*made)
        here.close()

    blobs = Blobs(tmp_path)
    asyncio.run(stop())
    assert list(blobs.ids()) == []
