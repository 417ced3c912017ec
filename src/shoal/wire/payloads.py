"""What algorithms send each other, as containers: payloads one way, messages and runs the other."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from shoal.aggregation import Aggregation, Bag, Payload
from shoal.algorithms import Algorithm, Call, open_round, start
from shoal.errors import WireError
from shoal.key import Key
from shoal.vector import Layout, Part
from shoal.wire.header import Buffer, Entry, NotesRule, Schema
from shoal.wire.tensors import Array, Reader, pack, unpack

NOTES = NotesRule()
_LARGE = 1 << 20  # a vector so long that zeros of it are not sent through a chain just to see what comes out
_SAMPLES = (1009, 2003)
_BLOCK = 4096  # numbers whose squares are added in float32, which costs a norm less than 4e-6 of itself

Work = Algorithm[Any, Any, Any]


def payload_schema(algorithm: Work) -> Schema:
    """What the container of one client's contribution holds: value, weight, clients, and notes by any name.

    Dtypes and shapes are those of zeros sent through the chain.

    >>> from shoal import FedAvg, models
    >>> print(*payload_schema(FedAvg(models.logistic(3))).entries, sep="\\n")
    Entry(name='value', dtype='float32', shape=(4,))
    Entry(name='weight', dtype='float32', shape=())
    Entry(name='clients', dtype='int32', shape=())
    """
    aggregation, layout = algorithm.aggregation, algorithm.layout
    if layout.size <= _LARGE:
        return _schema_of(_silent(aggregation, layout))
    small = [_silent(aggregation, _of_size(size, layout.dtype)) for size in _SAMPLES]
    longer = {payload.value.shape[-1] - size for payload, size in zip(small, _SAMPLES, strict=True)}
    if len(longer) > 1:
        return _schema_of(_silent(aggregation, layout))
    value, *others = _schema_of(small[0]).entries
    return Schema((Entry("value", value.dtype, (*value.shape[:-1], layout.size + longer.pop())), *others), NOTES)


def arrays_of(payload: Payload | Bag) -> dict[str, Array]:
    """The arrays of a payload's container, for `pack` or `pack_to`.

    WireError if it has more notes than travel, or one that is too long or has more than one axis.
    """
    notes = {f"{NOTES.prefix}{name}": np.asarray(note, np.float32) for name, note in sorted(payload.notes.items())}
    if len(notes) > NOTES.most:
        raise WireError(f"a contribution has {len(notes)} notes (metrics are some), and at most {NOTES.most} travel")
    for name, note in notes.items():
        if note.ndim != 1 or note.size > NOTES.entries:
            raise WireError(
                f"{name} has shape {note.shape}, and a note is a list of at most {NOTES.entries} numbers: send what is "
                "larger as a part of the value"
            )
    parts = {"value": payload.value, "weight": payload.weight, "clients": payload.clients}
    return {**{name: np.asarray(part) for name, part in parts.items()}, **notes}


def pack_payload(payload: Payload | Bag) -> bytes:
    """A payload's container; WireError as in `arrays_of`."""
    return pack(arrays_of(payload))


def unpack_payload(data: Any, schema: Schema) -> Payload | Bag:
    """The payload in a container, its arrays views of the bytes; WireError if it is not what the schema says.

    The numbers are as they came: `PayloadCheck` looks at them.
    """
    arrays = unpack(data, schema)
    value, weight, clients = (arrays.pop(name) for name in ("value", "weight", "clients"))
    kind = Payload if value.ndim == 1 else Bag
    notes = {name.removeprefix(NOTES.prefix): note for name, note in arrays.items()}
    return kind(value=value, weight=weight, notes=notes, clients=clients)


def check_payload(data: Buffer, algorithm: Work) -> None:
    """WireError if a whole container is not what `PayloadCheck` lets pass."""
    check = PayloadCheck(algorithm, payload_schema(algorithm))
    check.feed(data)
    check.finish()


class PayloadCheck:
    """Looks at one client's contribution as it comes, and keeps nothing of it.

    A WireError, whose sentence says why, for: a container that is not what the schema says; a number that is NaN or
    infinite; a value longer than the chain lets any client's be, in L2 norm (by 1e-5 of itself for rounding); a weight
    under 0 or over the chain's cap; a number of clients other than 0 or 1; anything but zeros from no client.
    """

    def __init__(self, algorithm: Work, schema: Schema) -> None:
        aggregation = algorithm.aggregation
        self._most = aggregation.longest(algorithm.layout) / (aggregation.unit or 1.0)
        weight = next(entry for entry in schema.entries if entry.name == "weight")
        whole = np.dtype(weight.dtype).kind == "i"  # a weight of 11.5 is rounded to 12 on a grid
        self._cap = math.ceil(aggregation.cap) if whole else aggregation.cap
        self._reader = Reader(schema)
        self._squares = 0.0
        self._weight = self._clients = 0.0
        self._silent = True

    def feed(self, chunk: Buffer) -> None:
        """Looks at the next bytes of the container."""
        for name, _, piece in self._reader.feed(chunk):
            self._silent = self._silent and (name == "clients" or not piece.any())
            squares = _squares(piece)
            if math.isnan(squares):
                raise WireError(f"{name!a} holds numbers that are not finite")
            if name == "value":
                self._squares += squares
            elif name == "weight":
                self._weight = float(piece[0])
            elif name == "clients":
                self._clients = float(piece[0])

    def finish(self) -> None:
        """Looks at the whole."""
        self._reader.finish()
        if self._clients not in (0, 1):
            raise WireError("a contribution counts for one client, or for none if it is nothing but zeros")
        if not 0 <= self._weight <= self._cap * (1 + 1e-6):
            raise WireError(f"the weight of a contribution is from 0 to {self._cap:g} here, and this one's is not")
        if self._clients == 0 and not self._silent:
            raise WireError("a contribution that counts for no client is nothing but zeros, and this one is not")
        if math.sqrt(self._squares) > self._most * (1 + 1e-5):
            raise WireError(f"the value is longer than the {self._most:g} that this aggregation lets a client's be")

    @property
    def clients(self) -> int:
        """How many clients it counts for, 0 or 1: 0 is from one whose data or training could not be used."""
        return int(self._clients)


def tree_arrays(tree: Any) -> dict[str, Array]:
    """The arrays of a tree's container, for `pack` or `pack_to`: its leaves, by number."""
    return {str(number): np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(tree))}


def pack_tree(tree: Any) -> bytes:
    """The container of a tree of arrays. Its structure does not travel: the reader has a tree like it.

    >>> unpack_tree(pack_tree({"a": np.arange(2), "b": None}), {"a": np.zeros(2, int), "b": None})
    {'a': array([0, 1]), 'b': None}
    """
    return pack(tree_arrays(tree))


def unpack_tree(data: Any, like: Any) -> Any:
    """The tree in a container, with the structure, shapes and dtypes of `like` (arrays, or JAX's shapes of arrays).

    The leaves are views of the bytes. WireError if the container holds anything else.
    """
    leaves, structure = jax.tree.flatten(like)
    arrays = unpack(data, Schema(tuple(_entry(str(number), leaf) for number, leaf in enumerate(leaves))))
    return jax.tree.unflatten(structure, list(arrays.values()))


def call_of(algorithm: Work, data: Any) -> Call[Any]:
    """What a client of this algorithm was sent, from its container (`pack_tree` of the call, made by the server)."""
    return unpack_tree(data, _call_shapes(algorithm))


@lru_cache(maxsize=4)
def _call_shapes(algorithm: Work) -> Any:
    """The tree of a call, shapes in its leaves' places. A large model in JAX is traced instead of made."""

    def first() -> Call[Any]:
        return open_round(algorithm, start(algorithm, Key.from_seed(0)))

    call = jax.eval_shape(first) if algorithm.traceable and algorithm.layout.size > _LARGE else first()
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(*_shape_and_dtype(leaf)), call)


def _shape_and_dtype(leaf: Any) -> tuple[tuple[int, ...], Any]:
    array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    return tuple(array.shape), array.dtype


def _entry(name: str, leaf: Any) -> Entry:
    shape, dtype = _shape_and_dtype(leaf)
    return Entry(name, str(dtype), shape)


def _silent(aggregation: Aggregation, layout: Layout) -> Payload | Bag:
    """What zeros become on their way through a chain."""
    payload, _ = aggregation.encode(
        np.zeros(layout.size, layout.dtype), examples=0, notes={}, states=aggregation.start(layout),
        key=Key.from_seed(0), layout=layout,
    )  # fmt: skip
    return payload


def _of_size(size: int, dtype: str) -> Layout:
    return Layout((Part("sample", (size,), dtype),), dtype)


def _schema_of(payload: Payload | Bag) -> Schema:
    parts = {"value": payload.value, "weight": payload.weight, "clients": payload.clients}
    return Schema(tuple(_entry(name, part) for name, part in parts.items()), NOTES)


def _squares(piece: Array) -> float:
    """The sum of a piece's squares; NaN if a number is not finite."""
    if piece.dtype == np.float32:
        quick = _by_blocks(piece)
        if math.isfinite(quick) and quick > 1e-20:  # smaller or larger ones have no square in float32
            return quick
    if piece.dtype.kind == "f" and not np.isfinite(piece).all():
        return math.nan
    return _by_blocks(piece.astype(np.float64))


def _by_blocks(numbers: Array) -> float:
    """The sum of squares, block by block: exact enough in float32, and too short for BLAS to start threads."""
    whole = len(numbers) // _BLOCK * _BLOCK
    rows, rest = numbers[:whole].reshape(-1, _BLOCK), numbers[whole:]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return float(np.sum(_dots(rows, rows), dtype=np.float64)) + float(np.dot(rest, rest))


_dots: Any = np.vecdot
