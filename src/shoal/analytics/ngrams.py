"""Counts of words that follow each other, summed over clients exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from shoal.aggregation import Aggregation
from shoal.algorithms.protocol import Local
from shoal.algorithms.recipes import total
from shoal.describe import digest
from shoal.errors import DataError, SettingError
from shoal.examples import Examples
from shoal.key import Key
from shoal.settings import settle, whole
from shoal.vector import Layout, Part, Vector

Codes = Int[np.ndarray, " ngrams"]
"""Runs of words as whole numbers, sorted: the words are digits in base `vocabulary`, the last word lowest."""


@dataclass(frozen=True)
class NgramTable:
    """Which runs of one, two, three ... words are counted: agreed on before anybody counts.

    `keys` has, for each length, the codes of its runs; every single word is counted. Who knows the table knows
    that somebody may have written what is in it, so a deployment takes it from public text, or asks for it with
    protections; `held_by` makes one of the clients' own data, for a simulation.

    >>> NgramTable(5, ([0, 1, 2, 3, 4], [7, 9])).ngrams
    (5, 2)
    """

    vocabulary: int
    keys: Any = field(repr=False, compare=False)
    ngrams: tuple[int, ...] = field(init=False, default=())
    """How many runs of each length there are."""
    fingerprint: str = field(init=False, default="")
    """The digest of the runs: tables, and plans with them, compare by it."""

    def __post_init__(self) -> None:
        vocabulary = whole(self.vocabulary, "a vocabulary has at least one word", least=1)
        keys = tuple(np.array(codes, np.int64) for codes in self.keys)
        _check_size(vocabulary, len(keys))
        if not np.array_equal(keys[0], np.arange(vocabulary)):
            raise SettingError(f"every single word is counted: the first keys are 0 to {vocabulary - 1}")
        for length, codes in enumerate(keys, 1):
            if len(codes) and not (codes[0] >= 0 and codes[-1] < vocabulary**length and (np.diff(codes) > 0).all()):
                raise SettingError(
                    f"the keys of {length} words are sorted codes under {vocabulary}^{length}, each once"
                )
            codes.setflags(write=False)
        sizes = tuple(len(codes) for codes in keys)
        settle(self, vocabulary=vocabulary, keys=keys, ngrams=sizes, fingerprint=digest(keys))

    @staticmethod
    def held_by(clients: Iterable[Examples], *, vocabulary: int, order: int = 3, least_clients: int = 2) -> NgramTable:
        """All runs of up to `order` words that at least `least_clients` clients hold.

        Each client gives `x`, the words before, and `y`, the word. With `least_clients=1` the table holds what a
        single client wrote, which tells everybody that it was written.
        """
        _check_size(vocabulary, whole(order, "a run has at least one word", least=1))
        least = whole(least_clients, "a run is held by at least one client", least=1)
        held: list[list[Codes]] = [[] for _ in range(order)]
        for client in clients:
            for length, found in enumerate(held, 1):
                found.append(np.unique(_codes(client, vocabulary, length)))
        keys = [np.arange(vocabulary)]
        for found in held[1:]:
            codes, holders = np.unique(np.concatenate(found), return_counts=True)
            keys.append(codes[holders >= least])
        return NgramTable(vocabulary, tuple(keys))

    @property
    def order(self) -> int:
        """How many words the longest runs have."""
        return len(self.ngrams)

    def counts(self, data: Examples) -> tuple[Int[np.ndarray, " ngrams"], ...]:
        """How often each run of the table is in one client's data, for each length; others are not counted."""
        counted: list[Any] = []
        for length, keys in enumerate(self.keys, 1):
            codes = _codes(data, self.vocabulary, length)
            places, present = find(keys, codes)
            counted.append(np.bincount(places[present], minlength=len(keys)))
        return tuple(counted)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ngrams:
    """How often each run of a table was written, by all clients together: whole numbers, for each length."""

    counts: tuple[Int[np.ndarray, " ngrams"], ...]


@dataclass(frozen=True)
class NgramCounts:
    """One round: each client sends how often it wrote each run of words of a table.

    Whole numbers in float64, so the sum over the clients is the pooled count exactly, in any order, up to 2^53.
    What a client sends is as long as the table, whatever it wrote, and in a plain sum the server can read it:
    these are the words of a person, and a secure sum and noise are what they ask for.

    >>> from shoal.algorithms import start
    >>> NgramCounts(NgramTable(5, ([0, 1, 2, 3, 4], [7, 9]))).layout.size
    7
    """

    table: NgramTable
    aggregation: Aggregation = field(default_factory=total, kw_only=True)

    @property
    def layout(self) -> Layout:
        """A count for each run, in float64."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        sizes = enumerate(self.table.ngrams, 1)
        return Layout(tuple(Part(_name(length), (size,), "float64") for length, size in sizes), "float64")

    @property
    def traceable(self) -> bool:
        """False: float64 is NumPy's."""
        return False

    def check(self, data: Examples) -> None:
        """DataError if the rows are not words of the vocabulary with enough words before each."""
        for length in range(1, self.table.order + 1):
            _codes(data, self.table.vocabulary, length)

    def init(self, key: Key) -> Ngrams:
        """Nothing counted."""
        return Ngrams(tuple(np.zeros(size, np.int64) for size in self.table.ngrams))

    def broadcast(self, state: Ngrams, round: Any) -> None:
        """Nothing: the table is part of the plan."""

    def enter(self) -> None:
        """A client keeps nothing."""

    def local(self, message: None, data: Examples, client_state: None, key: Key) -> Local:
        """The client's counts."""
        counts = enumerate(self.table.counts(data), 1)
        parts = {_name(length): np.asarray(count, np.float64) for length, count in counts}
        return Local(self.layout.flatten(parts), data.count)

    def update(self, state: Ngrams, result: Vector, round: Any) -> Ngrams:
        """The counts of this round's clients, in place of earlier ones, so that nothing counts twice."""
        parts = self.layout.unflatten(np.asarray(result))
        return Ngrams(tuple(np.rint(parts[_name(i)]).astype(np.int64) for i in range(1, self.table.order + 1)))


def find(keys: Codes, codes: Codes) -> tuple[Any, Any]:
    """Where each code is among sorted keys; and whether it is there at all."""
    if not len(keys):
        return np.zeros(len(codes), np.int64), np.zeros(len(codes), bool)
    places = np.minimum(np.searchsorted(keys, codes), len(keys) - 1)
    return places, keys[places] == codes


def context_codes(x: Any, vocabulary: int, *, words: int) -> Codes:
    """The codes of the last `words` words of each row of contexts."""
    x = np.asarray(x)
    codes = np.zeros(len(x), np.int64)
    for place in range(x.shape[1] - words, x.shape[1]):
        codes = codes * vocabulary + x[:, place]
    return codes


def _codes(data: Examples, vocabulary: int, length: int) -> Codes:
    """The run of `length` words that each row ends with."""
    x, y = data.rows("x"), data.rows("y")
    if x.ndim != 2 or x.shape[1] < length - 1 or y.ndim != 1:
        raise DataError(
            f"a row of 'x' holds the {length - 1} words before the word in 'y', and rows have shape {x.shape[1:]} and "
            f"{y.shape[1:]}: make them with texts.contexts(vocabulary, before={length - 1})"
        )
    for name, column in (("x", x), ("y", y)):
        wrong = not np.issubdtype(column.dtype, np.integer) or column.min() < 0 or column.max() >= vocabulary
        if wrong:
            raise DataError(f"column {name!r} holds words' numbers from 0 to {vocabulary - 1}, and this one does not")
    return context_codes(x, vocabulary, words=length - 1) * vocabulary + y


def _check_size(vocabulary: int, order: int) -> None:
    if vocabulary**order >= 2**63:
        raise SettingError(
            f"runs of {order} words of a vocabulary of {vocabulary} do not fit into 64 bits: count shorter runs"
        )


def _name(length: int) -> str:
    return f"{length} words" if length > 1 else "words"
