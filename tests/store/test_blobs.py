"""Blobs: whole under their name or not there, whatever order, repetition, damage or death their parts meet."""

from __future__ import annotations

import gc
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ConflictError, WireError
from shoal.store.blobs import Blobs
from shoal.store.faults import VARIABLE
from shoal.wire.blobs import blob_id, manifest_of
from shoal.wire.messages import Manifest

DATA = random.Random(0).randbytes(10_500)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def part(number: int, *, size: int = 1000) -> bytes:
    return DATA[number * size : (number + 1) * size]


def files(blobs: Blobs) -> list[Path]:
    """All files in the folder."""
    return [path for path in blobs.folder.rglob("*") if path.is_file()]


def test_bytes_are_kept_under_the_id_of_their_manifest(blobs: Blobs):
    manifest = blobs.put_bytes(DATA)
    blob = blob_id(manifest)
    assert manifest == manifest_of(DATA)
    assert blobs.has(blob) and blobs.size(blob) == len(DATA) and list(blobs.ids()) == [blob]
    assert blobs.read(blob, offset=100, length=50) == DATA[100:150]
    assert blobs.read(blob, offset=len(DATA) - 5, length=50) == DATA[-5:]
    with blobs.open(blob) as file:
        assert file.read() == DATA
    assert blobs.path(blob).name == f"{blob}.blob" and files(blobs) == [blobs.path(blob)]
    assert blobs.put_bytes(DATA) == manifest
    blobs.delete(blob)
    blobs.delete(blob)
    assert not blobs.has(blob) and files(blobs) == []


def test_files_are_copied_or_taken(blobs: Blobs, tmp_path: Path):
    path = tmp_path / "model"
    path.write_bytes(DATA)
    manifest = blobs.put_file(path)
    assert manifest == manifest_of(DATA) and path.exists()
    with blobs.scratch() as scratch:
        scratch.write_bytes(DATA[:99])
        taken = blobs.take_file(scratch)
    assert blobs.read(blob_id(taken), offset=0, length=999) == DATA[:99]
    with pytest.raises(RuntimeError), blobs.scratch() as scratch:
        scratch.write_bytes(DATA)
        raise RuntimeError
    assert len(files(blobs)) == 2


def test_nobody_else_reads_blobs(blobs: Blobs):
    blobs.put_bytes(DATA)
    blobs.incoming("k", manifest_of(DATA, part_bytes=1000)).put(0, part(0))
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(blobs)} == {0o600}
    folders = [blobs.folder, *(path for path in blobs.folder.iterdir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


@given(
    order=st.permutations(range(11)),
    chunk=st.integers(100, 1500),
    restarts=st.sets(st.integers(0, 10)),
    bad=st.sets(st.integers(0, 10)),
)
def test_parts_come_in_any_order_in_any_pieces_over_any_restarts(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], chunk: int, restarts: set[int], bad: set[int]
):
    blobs = Blobs(tmp_path_factory.mktemp("blobs"))
    manifest = manifest_of(DATA, part_bytes=1000)
    incoming = blobs.incoming("task-1", manifest)
    have: set[int] = set()
    for step, number in enumerate(order):
        if step in restarts:
            incoming = Blobs(blobs.folder).incoming("task-1", manifest)
        assert incoming.missing() == tuple(sorted(set(range(11)) - have))
        if number in bad:
            with pytest.raises(WireError, match="digest"):
                incoming.put(number, bytes(len(part(number))))
            assert not incoming.has(number)
        pieces = [part(number)[start : start + chunk] for start in range(0, 1000, chunk)]
        incoming.put(number, pieces)
        incoming.put(number, b"it is there, and this is not read")
        have.add(number)
        assert not blobs.has(blob_id(manifest))
    incoming.commit()
    assert blobs.read(blob_id(manifest), offset=0, length=20_000) == DATA
    assert files(blobs) == [blobs.path(blob_id(manifest))]


def test_a_part_of_another_length_than_declared_is_refused(blobs: Blobs):
    incoming = blobs.incoming("k", manifest_of(DATA, part_bytes=1000))
    with pytest.raises(WireError, match="more bytes than were declared"):
        incoming.put(10, part(9))  # the last one is shorter
    with pytest.raises(WireError, match="ended 1 bytes too early"):
        incoming.put(3, part(3)[:-1])
    with pytest.raises(WireError, match="no part 11"):
        incoming.begin(11)
    assert len(incoming.missing()) == 11
    assert blobs.incoming("k", incoming.manifest) is incoming


def test_a_manifest_that_contradicts_itself_is_refused(blobs: Blobs):
    with pytest.raises(WireError):
        blobs.incoming("k", Manifest(size_bytes=5000, part_bytes=1000, parts=(b"0" * 32,), raw_bytes=5000))
    assert files(blobs) == []


def test_of_two_that_send_a_part_the_later_wins(blobs: Blobs):
    incoming = blobs.incoming("k", manifest_of(DATA, part_bytes=1000))
    stuck = incoming.begin(0)
    stuck.write(b"garbage")
    with incoming.begin(0) as later:
        with pytest.raises(ConflictError, match="sent by somebody else"):
            stuck.write(b"garbage")
        later.write(part(0))
        with pytest.raises(ConflictError):
            stuck.finish()
        later.finish()
    with pytest.raises(ConflictError, match="part 0 is there already"):
        incoming.begin(0)
    assert not Blobs(blobs.folder).incoming("k", incoming.manifest).missing().count(0)


def test_another_manifest_begins_anew(blobs: Blobs):
    first = blobs.incoming("k", manifest_of(DATA, part_bytes=1000))
    first.put(0, part(0))
    stuck = first.begin(1)
    second = blobs.incoming("k", manifest_of(DATA[:1500], part_bytes=1000))
    with pytest.raises(ConflictError):
        stuck.write(b"?")
    assert second.missing() == (0, 1)
    second.put(0, part(0))
    del first, second, stuck
    gc.collect()
    shorter = blobs.incoming("k", manifest_of(DATA[:500], part_bytes=500))  # the file on the disk is longer
    assert shorter.missing() in ((), (0,))
    shorter.put(0, DATA[:500])
    shorter.commit()
    assert blobs.read(blob_id(shorter.manifest), offset=0, length=9999) == DATA[:500]


def test_an_abandoned_upload_is_gone(blobs: Blobs):
    incoming = blobs.incoming("k", manifest_of(DATA, part_bytes=1000))
    incoming.put(0, part(0))
    incoming.abandon()
    incoming.abandon()
    assert files(blobs) == []
    with pytest.raises(ConflictError):
        incoming.begin(1)


def test_what_arrived_in_part_is_swept_when_it_is_old(blobs: Blobs):
    manifest = manifest_of(DATA, part_bytes=1000)
    old, new = blobs.incoming("old", manifest), blobs.incoming("new", manifest)
    kept = blobs.put_bytes(DATA)
    old.put(0, part(0))
    new.put(0, part(0))
    with blobs.scratch() as left:
        for path in (blobs.folder / "incoming" / "old.part", left):
            os.utime(path, (1.0, 1.0))
        assert blobs.sweep(older_s=3600) == 2
    assert blobs.sweep(older_s=3600) == 0
    with pytest.raises(ConflictError):
        old.begin(1)
    new.put(1, part(1))
    assert blobs.has(blob_id(kept)) and len(files(blobs)) == 2


FULL_DISK = """
import resource, sys
from pathlib import Path
from shoal.errors import StoreError
from shoal.store.blobs import Blobs
from shoal.wire.blobs import manifest_of

blobs, data = Blobs(sys.argv[1]), bytes(3_000_000)
manifest = manifest_of(data, part_bytes=1_000_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
incoming = blobs.incoming("k", manifest)
incoming.put(0, data[:1_000_000])
for fails in (lambda: blobs.put_bytes(data), lambda: incoming.put(1, data[:1_000_000])):
    try:
        fails()
        sys.exit("there was room")
    except StoreError as error:
        print(error)
assert incoming.missing() == (1, 2), incoming.missing()
assert list(blobs.ids()) == [] and len(list(Path(sys.argv[1], "incoming").iterdir())) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in incoming.missing():
    incoming.put(number, data[:1_000_000])
incoming.commit()
assert len(list(blobs.ids())) == 1
"""


def test_a_full_disk_leaves_no_half_blob_and_uploads_go_on_when_there_is_room(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("there is no room for it on the disk") == 2


KILLED = """
import sys
from shoal.store.blobs import Blobs

Blobs(sys.argv[1]).put_bytes(b"some bytes")
"""


@pytest.mark.parametrize(("crash", "there"), [("blob-before", False), ("blob-after", True)])
def test_a_kill_leaves_a_blob_whole_or_not_there(tmp_path: Path, crash: str, there: bool):
    environment = os.environ | {VARIABLE: crash}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    blobs = Blobs(tmp_path)
    assert list(blobs.ids()) == ([blob_id(manifest_of(b"some bytes"))] if there else [])
    assert blobs.sweep(older_s=-60) == (not there)
    assert blobs.free_bytes() > 0
