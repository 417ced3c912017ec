"""What only blobs in S3 do: addresses, credentials, owners, cut connections, deletions under way, kills, memory."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal.errors import StoreError
from shoal.store.blob_store import BlobStore, open_blobs
from shoal.store.faults import VARIABLE
from shoal.store.object_file import ObjectFile
from shoal.wire.blobs import blob_id, manifest_of
from tests.s3 import CREDENTIALS, Service

DATA = bytes(range(256)) * 40


@pytest.fixture
def opened(service: Service, bucket: str, tmp_path: Path) -> Callable[..., BlobStore]:
    """Opens the blobs of a bucket."""
    return lambda owner="hearts", **at: open_blobs(service.url(bucket, **at), folder=tmp_path, owner=owner)


def test_objects_have_the_places_of_files(opened: Callable[..., BlobStore], service: Service, bucket: str):
    for prefix, begins in (("a/b", "a/b/"), ("", "")):
        blob = blob_id(opened(prefix=prefix).put_bytes(DATA))
        assert f"{begins}{blob[:2]}/{blob}.blob" in service.keys(bucket)
        service.client.put_object(Bucket=bucket, Key=f"{begins}notes.txt", Body=b"somebody's")
        assert list(opened(prefix=prefix).ids()) == [blob]


def test_a_prefix_is_one_servers(opened: Callable[..., BlobStore]):
    opened("hearts").put_bytes(DATA)
    assert len(list(opened("hearts").ids())) == 1
    with pytest.raises(StoreError, match="are another server's, and each deletes what it does not need"):
        opened("lungs")
    opened("lungs", prefix="other")


@pytest.mark.parametrize(
    "place",
    [
        "gs://bucket/prefix", "s3://", "s3:///prefix", "s3://key:secret@bucket/prefix", "s3://bucket:99/prefix",
        "s3://bucket/p?region=x", "s3://bucket/p?endpoint_url", "s3://bucket/p#x", "s3://[bucket/p",
    ],
)  # fmt: skip
def test_other_addresses_are_refused_and_not_repeated(place: str, tmp_path: Path):
    with pytest.raises(StoreError, match="s3://bucket/prefix") as told:
        open_blobs(place, folder=tmp_path)
    assert "secret" not in str(told.value)


def test_results_do_not_travel_in_the_clear(tmp_path: Path, bucket: str):
    for clear in ("http://s3.example.org", "http://192.0.2.1:9000"):
        with pytest.raises(StoreError, match="in the clear: give an endpoint_url that begins with https://"):
            open_blobs(f"s3://bucket/p?endpoint_url={clear}", folder=tmp_path)
    with pytest.raises(StoreError, match="is a URL such as https://"):
        open_blobs("s3://bucket/p?endpoint_url=nonsense", folder=tmp_path)


def test_what_is_wrong_is_said_with_what_to_do(
    service: Service, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(StoreError, match="no such bucket: make it first"):
        open_blobs(service.url("shoal-nowhere"), folder=tmp_path)
    with pytest.raises(StoreError, match="it does not answer: look at the address"):
        open_blobs("s3://bucket/p?endpoint_url=http://127.0.0.1:9", folder=tmp_path)
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StoreError, match="there are no credentials: give them as boto3 finds them"):
        open_blobs(service.url(bucket), folder=tmp_path)


def test_a_blob_that_somebody_else_removed_is_told_and_not_believed_in(
    opened: Callable[..., BlobStore], service: Service, bucket: str
):
    blobs = opened()
    blob = blob_id(blobs.put_bytes(DATA))
    service.client.delete_object(Bucket=bucket, Key=f"here/blobs/{blob[:2]}/{blob}.blob")
    with pytest.raises(StoreError, match="it is not there"):
        blobs.read(blob, offset=0, length=9)
    assert not blobs.has(blob)


def test_what_is_put_while_it_is_being_removed_stays(opened: Callable[..., BlobStore], monkeypatch: pytest.MonkeyPatch):
    blobs = opened()
    blob, go_on = blob_id(blobs.put_bytes(DATA)), threading.Event()
    remove = blobs._s3.delete
    monkeypatch.setattr(blobs._s3, "delete", lambda place: (go_on.wait(60), remove(place)))
    blobs.delete(blob)
    assert list(blobs.ids()) == []
    thread = threading.Thread(target=blobs.put_bytes, args=(DATA,))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    go_on.set()
    thread.join()
    assert blobs.has(blob) and blobs.read(blob, offset=0, length=len(DATA)) == DATA


def test_what_cannot_be_removed_is_left_to_the_next_sweep(
    opened: Callable[..., BlobStore], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    blobs = opened()
    blob = blob_id(blobs.put_bytes(DATA))
    with monkeypatch.context() as broken:

        def fails(place: str) -> None:
            raise StoreError("could not remove a blob")

        broken.setattr(blobs._s3, "delete", fails)
        blobs.delete(blob)
        assert blobs.has(blob)
    assert "left to the next sweep: could not remove a blob" in caplog.text
    assert list(blobs.ids()) == [blob]
    blobs.delete(blob)
    assert not blobs.has(blob)


def test_parts_of_an_object_that_never_became_whole_are_swept(
    opened: Callable[..., BlobStore], service: Service, bucket: str
):
    blobs = opened()
    for key in ("here/blobs/ab/half", "elsewhere/half"):
        service.client.create_multipart_upload(Bucket=bucket, Key=key)
    assert blobs.sweep(older_s=60 * 365 * 86_400) == 0  # moto says that every upload began in 2010
    assert blobs.sweep(older_s=3600) == 1
    left = service.client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/half"]


class Cut(io.BytesIO):
    """What is read over a connection that ends after so many bytes."""

    def __init__(self, data: bytes, left: int) -> None:
        super().__init__(data[:left])
        self._cut = left < len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data and self._cut:
            raise ConnectionError
        return data


@pytest.mark.parametrize("after", [1000, 1, 4096])
def test_a_connection_that_is_cut_is_begun_again_where_it_was(after: int):
    asked: list[int] = []

    def get(start: int, length: int) -> Cut:
        asked.append(start)
        return Cut(DATA[start : start + length], after)

    with ObjectFile.buffered(get, size=len(DATA)) as file:
        assert file.read(9000) == DATA[:9000]
    assert asked[:3] == [0, after, 2 * after]


def test_a_connection_that_is_cut_again_and_again_is_told():
    with (
        ObjectFile.buffered(lambda start, length: Cut(DATA, 0), size=len(DATA)) as file,
        pytest.raises(StoreError, match="its connection ended again and again"),
    ):
        file.read(9)


def test_memory_holds_a_few_parts_of_a_blob_and_not_all_of_it(opened: Callable[..., BlobStore]):
    blobs, part = opened(), os.urandom(8_000_000)
    manifest = manifest_of(part * 8, part_bytes=len(part))
    incoming = blobs.incoming("k", manifest)
    tracemalloc.start()
    try:
        for number in range(8):
            incoming.put(number, part)
        incoming.commit()
        with blobs.open(blob_id(manifest)) as file:
            assert sum(map(len, iter(lambda: file.read(1 << 18), b""))) == manifest.size_bytes
        assert tracemalloc.get_traced_memory()[1] < 3 * len(part)
    finally:
        tracemalloc.stop()


KILLED = """
import sys
from shoal.store.blob_store import open_blobs
from shoal.wire.blobs import manifest_of

data = bytes(range(250)) * 80_000
incoming = open_blobs(sys.argv[1], folder=sys.argv[2], owner="hearts").incoming("k", manifest_of(data))
for number in incoming.missing():
    incoming.put(number, data[number * incoming.manifest.part_bytes : (number + 1) * incoming.manifest.part_bytes])
incoming.commit()
"""


@pytest.mark.parametrize(("crash", "there"), [("blob-before", False), ("blob-after", True)])
def test_a_kill_leaves_a_blob_whole_or_not_there_and_nothing_is_sent_again(
    opened: Callable[..., BlobStore], service: Service, bucket: str, tmp_path: Path, crash: str, there: bool
):
    environment = os.environ | {VARIABLE: crash}
    command = [sys.executable, "-c", KILLED, service.url(bucket), str(tmp_path)]
    done = subprocess.run(command, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    data = bytes(range(250)) * 80_000
    blobs, manifest = opened(), manifest_of(data)
    assert blobs.has(blob_id(manifest)) == there
    incoming = blobs.incoming("k", manifest)
    assert incoming.missing() == ()
    incoming.commit()
    assert blobs.read(blob_id(manifest), offset=0, length=len(data)) == data
