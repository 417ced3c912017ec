"""Messages: whole ones come back equal, everything else is an error in words."""

from __future__ import annotations

import json
import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import WireError
from shoal.wire import messages
from shoal.wire.codec import decode, decode_json, encode, encode_json
from shoal.wire.messages import MESSAGE_BYTES, CheckIn, Message, Missing, RunInfo, Verdict
from tests.wire.messages import EVERY, RUN

KINDS = [type(message) for message in EVERY]


def test_there_is_an_example_of_every_message():
    named = {kind for kind in vars(messages).values() if isinstance(kind, type) and issubclass(kind, Message)}
    assert named - {Message} == set(KINDS)


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_equal(message):
    assert decode(encode(message), type(message)) == message
    assert decode_json(encode_json(message), type(message)) == message


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
def test_what_msgpack_says_is_a_map_that_any_reader_reads(message):
    fields = msgspec.msgpack.decode(encode(message))
    assert set(fields) == set(message.__struct_fields__)
    assert set(json.loads(encode_json(message))) == set(message.__struct_fields__)


@pytest.mark.parametrize("message", EVERY, ids=lambda message: type(message).__name__)
@given(data=st.data())
def test_a_damaged_message_is_a_wire_error_or_a_message(message, data):
    for pack, read in ((encode, decode), (encode_json, decode_json)):
        whole = bytearray(pack(message))
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
        end = data.draw(st.integers(0, len(whole)))
        for damaged in (bytes(whole), bytes(whole[:end])):
            try:
                got = read(damaged, type(message))
            except WireError:
                continue
            assert read(pack(got), type(message)) == got


@given(st.binary(max_size=300), st.sampled_from(KINDS))
def test_any_bytes_are_a_wire_error_or_a_message(data, kind):
    for read in (decode, decode_json):
        try:
            assert isinstance(read(data, kind), kind)
        except WireError:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\xa5parts\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\x81\xa5parts\xc6\xff\xff\xff\xff",  # bytes of 4 GB
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\x81\xa1z" + b"\x91" * 200_000,  # 200,000 arrays, one in another, in a field that is not known
        b"\x81\xa1z" + b"\xdd\x00\x10\x00\x00" + b"\xc0" * 2**20,
    ],
)
def test_no_claim_about_lengths_takes_memory(data):
    decode(encode(Missing(parts=())), Missing)
    tracemalloc.start()
    with pytest.raises(WireError):
        decode(data, Missing)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200_000


def test_an_unknown_field_is_passed_over():
    fields = {"verdict": "counted", "message": "", "mood": ["good", {"very": 1}]}
    assert decode(msgspec.msgpack.encode(fields), Verdict) == Verdict(verdict="counted")
    assert decode_json(json.dumps(fields).encode(), Verdict) == Verdict(verdict="counted")


@pytest.mark.parametrize(
    ("kind", "fields", "says"),
    [
        (Verdict, {"verdict": "s3cret"}, "a name that is not one of those known - at `\\$.verdict`"),
        (Verdict, {"verdict": "s3cret\n - at `$.here`"}, "not one of those known"),
        (Verdict, {}, "missing required field `verdict`"),
        (Verdict, {"verdict": "late", "message": "s3cret" * 1000}, "length <= 2000"),
        (CheckIn, {"wait_s": -1.5}, ">= 0"),
        (CheckIn, {"refuses": ["S3CRET"]}, "matching regex"),
        (CheckIn, {"holding": "s3cret"}, "Expected `array`, got `str`"),
    ],
)
def test_an_error_names_the_field_and_never_the_value(kind, fields, says):
    for read, pack in ((decode, msgspec.msgpack.encode), (decode_json, msgspec.json.encode)):
        with pytest.raises(WireError, match=says) as raised:
            read(pack(fields), kind)
        assert "s3cret" not in str(raised.value).lower()
        assert raised.value.__context__ is None or raised.value.__suppress_context__


def test_a_message_that_is_too_large_is_neither_sent_nor_read():
    large = Missing(parts=tuple(range(2_000_000)))
    for pack in (encode, encode_json):
        with pytest.raises(WireError, match="a Missing has at most 4,194,304 bytes"):
            pack(large)
    for read in (decode, decode_json):
        with pytest.raises(WireError, match="a RunInfo has at most"):
            read(b" " * (MESSAGE_BYTES + 1), RunInfo)


def test_json_has_bytes_in_base64():
    assert json.loads(encode_json(RUN))["plan"] == "e30="
