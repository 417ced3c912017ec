"""Messages as bytes and back: msgpack between Shoal's own, JSON for people with curl."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from shoal.errors import WireError
from shoal.wire.messages import MESSAGE_BYTES, Message

M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """A message as msgpack; WireError if it is larger than any message may be.

    >>> from shoal.wire.messages import Missing
    >>> decode(encode(Missing(parts=(1, 2))), Missing)
    Missing(parts=(1, 2))
    """
    return _fitting(msgspec.msgpack.encode(message), type(message))


def encode_json(message: Message) -> bytes:
    """A message as JSON, bytes in base64; WireError if it is larger than any message may be."""
    return _fitting(msgspec.json.encode(message), type(message))


def decode(data: bytes, kind: type[M]) -> M:
    """The message of a kind that msgpack says; WireError, with what is wrong and never with a value, if it is none.

    Fields that the kind does not have are passed over.
    """
    return _decoded(data, kind, _msgpack(kind).decode)


def decode_json(data: bytes, kind: type[M]) -> M:
    """The message of a kind that JSON says; WireError as in `decode`."""
    return _decoded(data, kind, _json(kind).decode)


@lru_cache
def _msgpack(kind: type[M]) -> msgspec.msgpack.Decoder[M]:
    return msgspec.msgpack.Decoder(kind)


@lru_cache
def _json(kind: type[M]) -> msgspec.json.Decoder[M]:
    return msgspec.json.Decoder(kind)


def _fitting(data: bytes, kind: type[Any]) -> bytes:
    if len(data) > MESSAGE_BYTES:
        raise WireError(f"{_article(kind)} has at most {MESSAGE_BYTES:,} bytes, and this one has {len(data):,}")
    return data


def _decoded(data: bytes, kind: type[M], decoder: Callable[[bytes], M]) -> M:
    _fitting(data, kind)
    try:
        return decoder(data)
    except msgspec.ValidationError as error:
        raise WireError(f"this is not {_article(kind)}: {_without_value(str(error))}") from None
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        raise WireError(f"this is not {_article(kind)}: the bytes are damaged, or of another format") from None


def _article(kind: type[Any]) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _without_value(text: str) -> str:
    """What msgspec says of a message, without the one value that it repeats: a name out of a list of names."""
    return re.sub(r"Invalid enum value .*?(?= - at `\$|$)", "a name that is not one of those known", text, flags=re.S)
