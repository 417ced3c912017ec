"""Blobs: what a manifest says is checked, and no more bytes come out than were declared."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import dataclass

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import WireError
from shoal.wire.blobs import (
    blob_id,
    check_manifest,
    check_part,
    coded,
    compressed,
    manifest_of,
    part_span,
    raw_chunks,
)
from shoal.wire.messages import Manifest

MANY = 10**9


def changed(manifest, **fields):
    return msgspec.structs.replace(manifest, **fields)


def packed(data):
    return b"".join(compressed(data))


def test_a_manifest_of_ten_bytes_in_parts_of_four_is_this_for_ever():
    manifest = manifest_of(b"0123456789", part_bytes=4)
    parts = tuple(hashlib.sha256(part).digest() for part in (b"0123", b"4567", b"89"))
    assert manifest == Manifest(size_bytes=10, part_bytes=4, parts=parts, raw_bytes=10)
    said = (
        b"shoal blob 1\0" + (10).to_bytes(8, "little") + (4).to_bytes(8, "little") + (10).to_bytes(8, "little")
        + (3).to_bytes(4, "little") + (0).to_bytes(4, "little") + b"".join(parts)
    )  # fmt: skip
    assert blob_id(manifest) == hashlib.sha256(said).hexdigest()
    assert blob_id(manifest) == "51acb9487467394cc6020f364e0c80daedcc1097c08c4b72bd3f26a029ababb7"


@given(st.binary(max_size=60), st.integers(1, 20))
def test_a_file_and_its_bytes_have_one_manifest_and_its_parts_are_those_of_the_bytes(tmp_path_factory, data, part):
    file = tmp_path_factory.mktemp("blobs") / "blob"
    file.write_bytes(data)
    manifest = manifest_of(data, part_bytes=part)
    assert manifest == manifest_of(file, part_bytes=part)
    check_manifest(manifest, most_bytes=len(data))
    spans = [part_span(manifest, number) for number in range(len(manifest.parts))]
    pieces = [data[offset : offset + length] for offset, length in spans]
    assert b"".join(pieces) == data
    for number, piece in enumerate(pieces):
        check_part(manifest, number, hashlib.sha256(piece).digest())


def test_a_large_file_is_hashed_in_little_memory(tmp_path):
    file = tmp_path / "blob"
    file.write_bytes(bytes(64 * 2**20))
    tracemalloc.start()
    manifest = manifest_of(file)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(manifest.parts) == 8
    assert most < 2**20


@dataclass(frozen=True)
class Wrong:
    fields: dict
    says: str


@pytest.mark.parametrize(
    "wrong",
    [
        Wrong({"size_bytes": 13, "raw_bytes": 13}, "are 4 parts"),
        Wrong({"size_bytes": 8, "raw_bytes": 8}, "are 2 parts"),
        Wrong({"size_bytes": 0, "raw_bytes": 0}, "are 0 parts"),
        Wrong({"part_bytes": 3}, "are 4 parts"),
        Wrong({"parts": ()}, "lists 0"),
        Wrong({"raw_bytes": 9}, "says 9"),
        Wrong({"raw_bytes": MANY + 1}, "larger than"),
        Wrong({"raw_bytes": MANY + 1, "coding": "zstd"}, "larger than"),
        Wrong({"size_bytes": MANY * 2, "part_bytes": MANY, "raw_bytes": 1}, "are 2 parts"),
    ],
    ids=lambda wrong: str(wrong.fields)[:50],
)
def test_a_manifest_that_contradicts_itself_is_refused(wrong):
    whole = manifest_of(b"0123456789", part_bytes=4)
    with pytest.raises(WireError, match=wrong.says):
        check_manifest(changed(whole, **wrong.fields), most_bytes=MANY)


def test_a_blob_larger_than_is_taken_is_refused_before_it_comes():
    with pytest.raises(WireError, match="a blob of 10 bytes is larger than the 9"):
        check_manifest(manifest_of(b"0123456789"), most_bytes=9)


def test_another_manifest_has_another_id():
    whole = manifest_of(b"0123456789", part_bytes=4)
    others = [
        whole,
        changed(whole, size_bytes=11),
        changed(whole, part_bytes=5),
        changed(whole, raw_bytes=11),
        changed(whole, coding="zstd"),
        changed(whole, parts=whole.parts[:2]),
        changed(whole, parts=whole.parts[::-1]),
    ]
    assert len({blob_id(other) for other in others}) == len(others)


@pytest.mark.parametrize("number", [-1, 3, 10**12])
def test_there_is_no_part_beyond_the_last(number):
    manifest = manifest_of(b"0123456789", part_bytes=4)
    with pytest.raises(WireError, match="parts 0 to 2"):
        part_span(manifest, number)
    with pytest.raises(WireError, match="parts 0 to 2"):
        check_part(manifest, number, bytes(32))


def test_a_part_with_another_digest_is_refused():
    with pytest.raises(WireError, match="part 1 of the blob is not the one declared"):
        check_part(manifest_of(b"0123456789", part_bytes=4), 1, hashlib.sha256(b"0123").digest())


def test_more_parts_than_a_message_holds_are_refused():
    with pytest.raises(WireError, match="take larger parts"):
        manifest_of(bytes(100_001), part_bytes=1)


@given(st.binary(max_size=200).map(lambda data: data * 9), st.integers(1, 50))
def test_what_was_compressed_comes_back_from_chunks_of_any_size(data, chunk):
    frame = packed(data)
    manifest = manifest_of(frame, coding="zstd")
    assert manifest.raw_bytes == len(data)
    chunks = [frame[i : i + chunk] for i in range(0, len(frame), chunk)]
    assert b"".join(raw_chunks(chunks, manifest)) == data
    assert zstandard.decompress(frame) == data


def test_a_file_is_compressed_like_its_bytes(tmp_path):
    data = bytes(range(256)) * 4000
    (tmp_path / "blob").write_bytes(data)
    assert zstandard.decompress(packed(tmp_path / "blob")) == data == zstandard.decompress(packed(data))


def test_bytes_without_a_coding_pass_as_they_are():
    manifest = manifest_of(b"0123456789")
    assert list(raw_chunks([b"0123", b"456789"], manifest)) == [b"0123", b"456789"]
    with pytest.raises(WireError, match="declared 10 bytes, and holds 4"):
        list(raw_chunks([b"0123"], manifest))
    with pytest.raises(WireError, match="more than the 10 bytes"):
        list(raw_chunks([b"0123456789", b"0"], manifest))


def test_a_bomb_gives_no_more_than_it_declared_and_takes_no_memory():
    bomb = packed(bytes(256 * 2**20))
    assert len(bomb) < 100_000
    manifest = changed(manifest_of(bomb, coding="zstd"), raw_bytes=10**6)
    tracemalloc.start()
    given_out = 0
    with pytest.raises(WireError, match="more than the 1,000,000 bytes"):
        for piece in raw_chunks([bomb], manifest):
            given_out += len(piece)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert given_out <= 10**6
    assert most < 2 * 2**20


def test_a_frame_that_asks_for_a_large_window_is_refused():
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    frame = packer.compress(bytes(1000)) + packer.flush()
    manifest = changed(manifest_of(frame), coding="zstd", raw_bytes=1000)
    with pytest.raises(WireError, match="not zstd that can be read"):
        list(raw_chunks([frame], manifest))


@given(st.data())
def test_a_damaged_frame_is_a_wire_error_or_as_long_as_declared(data):
    frame = bytearray(packed(b"some text " * 50))
    manifest = manifest_of(bytes(frame), coding="zstd")
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(frame)))
    for damaged in (bytes(frame), bytes(frame[:end]), bytes(frame) + b"\0", bytes(frame) * 2):
        try:
            assert len(b"".join(raw_chunks([damaged], manifest))) == 500
        except WireError:
            continue


@given(st.binary(max_size=100))
def test_any_bytes_are_a_frame_of_known_length_or_a_wire_error(data):
    try:
        manifest = manifest_of(data, coding="zstd")
        list(raw_chunks([data], changed(manifest, raw_bytes=min(manifest.raw_bytes, 2**40))))
    except WireError:
        return


def test_a_frame_that_hides_its_length_has_no_manifest():
    packer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    with pytest.raises(WireError, match="does not say how long"):
        manifest_of(packer.compress(b"text") + packer.flush(), coding="zstd")
    with pytest.raises(WireError, match="'' or 'zstd'"):
        manifest_of(b"", coding="gzip")


def test_noise_is_sent_as_it_is_and_zeros_are_compressed(random):
    noise = random.standard_normal(10**6).astype("<f4").tobytes()
    assert coded(noise) == (noise, "")
    assert coded(b"") == (b"", "")
    zeros = bytes(10**6)
    small, coding = coded(zeros)
    assert coding == "zstd"
    assert len(small) < 1000
    assert b"".join(raw_chunks([small], manifest_of(small, coding="zstd"))) == zeros
    half = noise + bytes(len(noise))
    assert len(coded(half)[0]) < 0.6 * len(half)
