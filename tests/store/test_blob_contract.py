"""What blobs in a folder and in S3 do alike: whole under their name or not there, and read in any order."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.errors import ConflictError, StoreError
from shoal.store.blob_store import BlobStore, open_blobs
from shoal.wire.blobs import blob_id, manifest_of

DATA = random.Random(0).randbytes(10_500)
LARGE = random.Random(1).randbytes(20_000_000)

Opener = Callable[[], BlobStore]


@pytest.fixture(params=["folder", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens blobs that are empty at first, as a server does at each start."""
    folder = tmp_path / "blobs"
    if request.param == "folder":
        return lambda: open_blobs(str(folder))
    bucket = request.getfixturevalue("bucket")
    url = request.getfixturevalue("service").url(bucket)
    return lambda: open_blobs(url, folder=folder, owner="hearts")


@pytest.fixture
def blobs(opened: Opener) -> BlobStore:
    return opened()


def part(number: int, *, size: int = 1000) -> bytes:
    return DATA[number * size : (number + 1) * size]


def test_bytes_are_kept_under_the_id_of_their_manifest(blobs: BlobStore, opened: Opener):
    manifest = blobs.put_bytes(DATA)
    blob = blob_id(manifest)
    assert manifest == manifest_of(DATA) == blobs.put_bytes(DATA)
    for found in (blobs, opened()):
        assert found.has(blob) and found.size(blob) == len(DATA) and list(found.ids()) == [blob]
        assert found.read(blob, offset=100, length=50) == DATA[100:150]
        assert found.read(blob, offset=len(DATA) - 5, length=50) == DATA[-5:]
        assert found.read(blob, offset=len(DATA), length=50) == b""
        with found.open(blob) as file:
            assert file.read() == DATA


def test_a_deleted_blob_is_gone_at_once_and_can_come_back(blobs: BlobStore, opened: Opener):
    for _ in range(3):
        blob = blob_id(blobs.put_bytes(DATA))
        assert blobs.has(blob) and opened().has(blob)
        blobs.delete(blob)
        blobs.delete(blob)
        assert not blobs.has(blob) and list(blobs.ids()) == [] and list(opened().ids()) == []
    blobs.delete("0" * 64)


def test_a_blob_is_read_like_a_file(blobs: BlobStore):
    blob = blob_id(blobs.put_bytes(DATA))
    moves = st.tuples(st.sampled_from([io.SEEK_SET, io.SEEK_END]), st.integers(0, len(DATA)), st.integers(0, 4000))

    @settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(st.lists(moves, max_size=8))
    def alike(asked: list[tuple[int, int, int]]) -> None:
        wanted = io.BytesIO(DATA)
        with blobs.open(blob) as file:
            for whence, offset, length in asked:
                to = offset if whence == io.SEEK_SET else -offset
                assert file.seek(to, whence) == wanted.seek(to, whence)
                assert file.read(length) == wanted.read(length)

    alike()


def test_a_large_blob_is_written_and_read_in_pieces(blobs: BlobStore):
    manifest = blobs.put_bytes(LARGE)
    blob = blob_id(manifest)
    assert blobs.size(blob) == len(LARGE)
    with blobs.open(blob) as file:
        assert b"".join(iter(lambda: file.read(1 << 18), b"")) == LARGE
    assert blobs.read(blob, offset=7_999_000, length=1_000_000) == LARGE[7_999_000:8_999_000]
    assert blobs.sweep(older_s=-3600) == 0


def test_parts_go_on_after_a_restart(opened: Opener):
    manifest = manifest_of(DATA, part_bytes=4000)
    for number in range(3):
        blobs = opened()
        incoming = blobs.incoming("task-1", manifest)
        assert incoming.missing() == tuple(range(number, 3))
        incoming.put(number, part(number, size=4000))
        assert not blobs.has(blob_id(manifest))
    incoming.commit()
    assert blobs.has(blob_id(manifest))
    assert opened().read(blob_id(manifest), offset=0, length=20_000) == DATA
    assert [path.name for path in (blobs.folder / "incoming").iterdir()] == []


def test_a_name_that_is_no_blobs_is_refused(blobs: BlobStore):
    for name in ("", "../" * 20 + "x", "A" * 64, "0" * 63, "0" * 65):
        for asks in (lambda name=name: blobs.read(name, offset=0, length=1), lambda name=name: blobs.delete(name)):
            with pytest.raises(StoreError, match="64 hexadecimal digits"):
                asks()
        with pytest.raises(StoreError, match="key of an upload"):
            blobs.incoming(name + "/", manifest_of(b""))


def test_while_a_blob_becomes_durable_nobody_waits_for_it(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch):
    manifest = manifest_of(DATA, part_bytes=5000)
    incoming = blobs.incoming("k", manifest)
    for number in range(2):
        incoming.put(number, part(number, size=5000))
    begun, go_on = threading.Event(), threading.Event()
    settle = incoming._settle

    def slowly(path: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        settle(path)

    monkeypatch.setattr(incoming, "_settle", slowly)
    incoming.put(2, part(2, size=5000))
    thread = threading.Thread(target=incoming.commit)
    thread.start()
    assert begun.wait(60)
    assert incoming.missing() == () and incoming.has(0) and not blobs.has(blob_id(manifest))
    assert blobs.incoming("k", manifest) is incoming
    for late in (incoming.commit, lambda: incoming.begin(1)):
        with pytest.raises(ConflictError):
            late()
    with pytest.raises(ConflictError, match="is being made durable"):
        blobs.incoming("k", manifest_of(DATA))
    incoming.abandon()
    assert blobs.sweep(older_s=-3600) == 0
    go_on.set()
    thread.join()
    assert blobs.read(blob_id(manifest), offset=0, length=20_000) == DATA
    assert blobs.incoming("k", manifest_of(DATA)).missing() == (0,)


def test_what_could_not_become_durable_is_tried_again(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch):
    incoming = blobs.incoming("k", manifest_of(DATA))
    incoming.put(0, DATA)
    with monkeypatch.context() as broken:
        broken.setattr(incoming, "_settle", lambda path: (_ for _ in ()).throw(OSError(28, "no room")))
        with pytest.raises(StoreError, match="no room"):
            incoming.commit()
    assert blobs.incoming("k", manifest_of(DATA)).missing() == ()
    incoming.commit()
    assert blobs.has(blob_id(manifest_of(DATA)))


def test_a_blob_that_is_not_there_is_told(blobs: BlobStore):
    with pytest.raises(StoreError, match="could not open the blob 000000000000: it is not there"):
        blobs.read("0" * 64, offset=0, length=1)


def test_an_empty_blob_has_no_parts(blobs: BlobStore):
    incoming = blobs.incoming("k", manifest_of(b""))
    assert incoming.missing() == ()
    incoming.commit()
    assert blobs.size(blob_id(manifest_of(b""))) == 0


def test_a_blob_with_missing_parts_is_not_made(blobs: BlobStore):
    incoming = blobs.incoming("k", manifest_of(DATA, part_bytes=1000))
    incoming.put(0, part(0))
    with pytest.raises(StoreError, match="10 of 11 parts of the blob are missing"):
        incoming.commit()
    assert not blobs.has(blob_id(incoming.manifest))


def test_no_writer_reaches_a_blob_that_is_durable(blobs: BlobStore):
    incoming = blobs.incoming("k", manifest_of(DATA[:10], part_bytes=5))
    incoming.put(0, DATA[:5])
    stuck = incoming.begin(1)
    incoming.put(1, DATA[5:10])
    incoming.commit()
    for late in (lambda: stuck.write(b"?"), incoming.commit, lambda: incoming.begin(1)):
        with pytest.raises(ConflictError):
            late()
    assert blobs.read(blob_id(incoming.manifest), offset=0, length=99) == DATA[:10]


def test_the_same_bytes_from_two_clients_are_one_blob(blobs: BlobStore):
    manifest = manifest_of(DATA)
    for key in ("task-1", "task-2"):
        incoming = blobs.incoming(key, manifest)
        incoming.put(0, DATA)
        incoming.commit()
    assert list(blobs.ids()) == [blob_id(manifest)]


def test_parts_are_written_at_the_same_time(blobs: BlobStore):
    incoming = blobs.incoming("k", manifest_of(DATA, part_bytes=1000))

    def send(number: int) -> None:
        incoming.put(number, [part(number)[start : start + 7] for start in range(0, 1000, 7)])

    threads = [threading.Thread(target=send, args=(number,)) for number in range(11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    incoming.commit()
    assert blobs.read(blob_id(incoming.manifest), offset=0, length=99_999) == DATA
