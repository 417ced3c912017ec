"""Containers: the safetensors package reads them, and nothing but what was expected is read."""

from __future__ import annotations

import io
import json
import mmap
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from shoal.errors import SettingError, WireError
from shoal.wire.header import Entry, NotesRule, Schema
from shoal.wire.tensors import Reader, pack, pack_to, unpack

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
          "float64"]  # fmt: skip
NOTES = NotesRule("notes.", most=2, entries=3)

arrays = hn.arrays(
    st.sampled_from(DTYPES).map(np.dtype), hn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
)
named = st.dictionaries(st.text(max_size=8), arrays, max_size=5)


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def pieces(data, schema, chunk):
    """What a reader makes of chunks of a size: the elements of each array, in a list of flat arrays."""
    reader, found = Reader(schema), {entry.name: [] for entry in schema.entries}
    for start in range(0, len(data), chunk):
        for name, offset, piece in reader.feed(data[start : start + chunk]):
            assert offset == sum(map(len, found.setdefault(name, [])))
            assert piece.ndim == 1
            assert not piece.flags.writeable
            found[name].append(piece)
    reader.finish()
    return {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in found.items()}


def container(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def place(begin, end, *, shape, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_the_bytes_of_a_container_are_these_for_ever():
    data = pack({"a": np.float32([1, -2]), "n": np.int32(7)})
    header = (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"n":{"dtype":"I32","shape":[],"data_offsets":[8,12]}}'
    )
    assert data[:8] == (112).to_bytes(8, "little")
    assert data[8:120] == header.ljust(112)
    assert data[120:].hex() == "0000803f" + "000000c0" + "07000000"


@given(named)
def test_arrays_come_back_the_same(given_arrays):
    data, schema = pack(given_arrays), Schema.of(given_arrays)
    assert len(data) <= schema.most_bytes
    back = unpack(data, schema)
    assert list(back) == list(given_arrays)
    assert all(same(back[name], array) for name, array in given_arrays.items())
    file = io.BytesIO()
    pack_to(file, given_arrays)
    assert file.getvalue() == data


@given(named, st.integers(1, 40))
def test_a_reader_gives_the_same_numbers_whatever_the_chunks(given_arrays, chunk):
    found = pieces(pack(given_arrays), Schema.of(given_arrays), chunk)
    for name, array in given_arrays.items():
        assert found[name].tobytes() == array.tobytes()


@given(named)
def test_safetensors_reads_what_was_packed(given_arrays):
    back = safetensors.numpy.load(pack(given_arrays))
    assert back.keys() == given_arrays.keys()
    assert all(same(back[name], array) for name, array in given_arrays.items())


@given(named)
def test_what_safetensors_saved_is_read(given_arrays):
    saved = safetensors.numpy.save(given_arrays)
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    in_file_order = {name: given_arrays[name] for name in header}
    assert pack(in_file_order) == saved
    back = unpack(saved, Schema.of(in_file_order))
    assert all(same(back[name], array) for name, array in given_arrays.items())


def test_arrays_are_views_of_the_bytes_and_cannot_be_written():
    data = bytearray(pack({"a": np.arange(4, dtype=np.float32), "b": np.arange(3.0)}))
    a, b = unpack(data, Schema((Entry("a", "float32", (4,)), Entry("b", "float64", (3,))))).values()
    data[-1] ^= 255
    assert b[-1] != 2
    assert not a.flags.writeable
    assert not b.flags.writeable


def test_an_array_that_lies_across_is_copied_and_aligned():
    given_arrays = {"flag": np.array([True]), "numbers": np.arange(3.0)}
    numbers = unpack(pack(given_arrays), Schema.of(given_arrays))["numbers"]
    assert numbers.flags.aligned
    assert not numbers.flags.writeable
    assert numbers.tolist() == [0, 1, 2]


def test_a_mapped_file_is_read_in_place(tmp_path):
    given_arrays = {"a": np.arange(10, dtype=np.int64)}
    with (tmp_path / "model").open("wb+") as file:
        pack_to(file, given_arrays)
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            a = unpack(mapped, Schema.of(given_arrays))["a"]
            assert a.sum() == 45
            del a


@pytest.mark.parametrize("array", [np.arange(12).reshape(3, 4).T, np.arange(9)[::-2], np.arange(3, dtype=">i4")])
def test_an_array_of_any_order_in_memory_is_packed_in_rows(array):
    back = unpack(pack({"a": array}), Schema((Entry("a", array.dtype.newbyteorder("=").name, array.shape),)))["a"]
    assert np.array_equal(back, array)


def test_a_large_array_of_another_order_is_packed_in_little_memory():
    array = np.zeros((2000, 5000), np.float32).T
    file = io.BytesIO(bytes(array.nbytes + 1000))
    tracemalloc.start()
    pack_to(file, {"a": array})
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 * 2**20


def test_reading_takes_no_more_memory_than_a_chunk():
    data = pack({"a": np.zeros(10**6, np.float32)})
    schema = Schema((Entry("a", "float32", (10**6,)),))
    tracemalloc.start()
    pieces_seen = 0
    reader = Reader(schema)
    for start in range(0, len(data), 1001):
        pieces_seen += sum(len(piece) for _, _, piece in reader.feed(data[start : start + 1001]))
    reader.finish()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pieces_seen == 10**6
    assert most < 50_000


AB = Schema((Entry("a", "float32", (2,)), Entry("b", "float32", ())))
A, B = place(0, 8, shape=[2]), place(8, 12, shape=[])

C = place(12, 16, shape=[])
BOTH = json.dumps({"a": A, "b": B}, separators=(",", ":")).encode()
B_AGAIN = b',"b":' + json.dumps(B, separators=(",", ":")).encode() + b"}"
INTS, F8 = (place(0, 8, shape=[2], dtype=dtype) for dtype in ("I32", "F8"))

REFUSED = {
    "a short end": (container(BOTH, bytes(11)), "has 1.. bytes, and its arrays need|ends within 'b'"),
    "bytes after the last array": (container(BOTH, bytes(13)), "arrays need|goes on after"),
    "a missing array": (container({"a": A}, bytes(8)), "lacks 'b'"),
    "an unknown array": (container({"a": A, "b": B, "c": C}, bytes(16)), "holds 'c', which was not"),
    "another order": (container({"b": B, "a": A}, bytes(12)), "has 'b' where"),
    "another shape": (container({"a": place(0, 8, shape=[2, 1]), "b": B}, bytes(12)), r"'a' is float32\[2, 1\]"),
    "another dtype": (container({"a": INTS, "b": B}, bytes(12)), "'a' is int32"),
    "an unknown dtype": (container({"a": F8, "b": B}, bytes(12)), "does not travel"),
    "an overlap": (container({"a": A, "b": place(4, 8, shape=[])}, bytes(12)), "with gaps"),
    "a gap": (container({"a": A, "b": C}, bytes(16)), "with gaps"),
    "a span that is not the size": (container({"a": place(0, 4, shape=[2]), "b": B}, bytes(12)), "with gaps"),
    "a negative place": (container({"a": place(-8, 0, shape=[2]), "b": B}, bytes(12)), "with gaps"),
    "a negative shape": (container({"a": place(0, 8, shape=[-2]), "b": B}, bytes(12)), "not a list of arrays"),
    "metadata": (container({"__metadata__": {"a": "b"}, "a": A, "b": B}, bytes(12)), "not a list of arrays"),
    "one name twice": (container(BOTH[:-1] + B_AGAIN, bytes(12)), "twice"),
    "spaces": (container(json.dumps({"a": A, "b": B}).encode(), bytes(12)), "twice"),
    "no JSON": (container(b"\xff" * 16, bytes(12)), "not a list of arrays"),
    "a list": (container([1, 2], bytes(12)), "not a list of arrays"),
    "depth": (container(b'{"a":' + b"[" * 4000, bytes(12)), "not a list of arrays"),
    "a huge header": ((2**63).to_bytes(8, "little") + bytes(100), "the header claims 9,223,372,036,854,775,808"),
    "a large header": (container(b" " * 10_000), "the header claims 10,000"),
    "nothing": (b"", "ends within its header"),
    "half a length": (bytes(4), "ends within its header"),
    "half a header": (container(BOTH)[:50], "ends within its header"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_container_is_refused_for(name):
    data, says = REFUSED[name]
    with pytest.raises(WireError, match=says):
        unpack(data, AB)
    for chunk in (1, 7, 1000):
        with pytest.raises(WireError, match=says):
            pieces(data, AB, chunk)


def with_notes(**notes):
    return pack({"a": np.zeros(2, np.float32), "b": np.float32(0), **notes})


def test_notes_are_the_only_arrays_whose_names_are_not_known_before():
    schema = Schema(AB.entries, NOTES)
    assert list(unpack(with_notes(), schema)) == ["a", "b"]
    data = with_notes(**{"notes.accuracy": np.float32([3, 4]), "notes.loss": np.float32([1])})
    assert len(data) <= schema.most_bytes
    assert unpack(data, schema)["notes.accuracy"].tolist() == [3, 4]
    assert pieces(data, schema, 5)["notes.loss"].tolist() == [1]
    with pytest.raises(WireError, match="not asked for"):
        unpack(data, AB)


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        ({"extra": np.float32([1])}, "is no note"),
        ({"notes.x": np.float64([1])}, "those are float32"),
        ({"notes.x": np.float32(1)}, "with one axis"),
        ({"notes.x": np.zeros((1, 1), np.float32)}, "with one axis"),
        ({"notes.x": np.zeros(4, np.float32)}, "of at most 3"),
        ({f"notes.{i}": np.float32([1]) for i in range(3)}, "3 arrays beside those asked for, and 2 notes"),
        ({"notes.b": np.float32([1]), "notes.a": np.float32([1])}, "order of their names"),
        ({"notes." + "é" * 150: np.float32([1])}, "is no note"),
    ],
)
def test_a_note_is_refused(notes, says):
    data, schema = with_notes(**notes), Schema(AB.entries, NOTES)
    with pytest.raises(WireError, match=says):
        unpack(data, schema)
    with pytest.raises(WireError, match=says):
        pieces(data, schema, 3)


@pytest.mark.parametrize("chunk", [1, 1000])
def test_a_byte_that_is_neither_true_nor_false_is_refused(chunk):
    schema = Schema((Entry("flags", "bool", (3,)),))
    data = container({"flags": place(0, 3, shape=[3], dtype="BOOL")}, bytes([0, 1, 2]))
    with pytest.raises(WireError, match="neither true nor false"):
        unpack(data, schema)
    with pytest.raises(WireError, match="neither true nor false"):
        pieces(data, schema, chunk)


@given(st.data())
def test_a_damaged_container_is_a_wire_error_or_has_the_shapes_asked_for(data):
    schema = Schema((*AB.entries, Entry("flags", "bool", (2,))), NOTES)
    notes = {"notes.loss": np.float32([1, 2])}
    whole = bytearray(pack({"a": np.float32([1, 2]), "b": np.float32(0), "flags": np.array([True, False]), **notes}))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:end])):
        try:
            back = unpack(damaged, schema)
        except WireError:
            with pytest.raises(WireError):
                pieces(damaged, schema, 13)
            continue
        assert [(name, str(a.dtype), a.shape) for name, a in back.items()][:3] == [
            (entry.name, entry.dtype, entry.shape) for entry in schema.entries
        ]
        found = pieces(damaged, schema, 13)
        assert all(found[name].tobytes() == array.tobytes() for name, array in back.items())


@given(st.binary(max_size=300))
def test_any_bytes_are_a_wire_error(data):
    with pytest.raises(WireError):
        unpack(data, AB)
    with pytest.raises(WireError):
        pieces(data, AB, 17)


def test_a_claim_about_lengths_takes_no_memory():
    schema = Schema((Entry("a", "float32", (10**12,)),))
    header = {"a": place(0, 4 * 10**12, shape=[10**12])}
    tracemalloc.start()
    with pytest.raises(WireError, match="arrays need 4,000,000,000"):
        unpack(container(header, bytes(8)), schema)
    with pytest.raises(WireError, match="ends within 'a'"):
        pieces(container(header, bytes(8)), schema, 100)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100_000


def test_a_schema_of_arrays_that_do_not_travel_is_refused():
    with pytest.raises(SettingError, match="complex64, which does not travel"):
        Schema((Entry("a", "complex64", ()),))
    with pytest.raises(SettingError, match="object, which does not travel"):
        pack({"a": np.array([{}])})
    with pytest.raises(SettingError, match="different names"):
        Schema((Entry("a", "float32", ()), Entry("a", "float32", ())))
    with pytest.raises(SettingError, match="those of notes"):
        Schema((Entry("notes.a", "float32", ()),), NOTES)
    with pytest.raises(SettingError, match="a header of more than"):
        Schema((Entry("a" * 9 * 2**20, "float32", ()),))
