"""The next word from counts: how likely it is after the words before, and which to suggest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shoal.analytics.ngrams import Codes, NgramTable, context_codes, find
from shoal.errors import DataError, SettingError
from shoal.settings import whole

NOTHING = -1
"""In place of a suggestion where the counts know no further word."""

Words = Int[np.ndarray, "rows top"]


@dataclass(frozen=True, eq=False)
class NgramModel:
    """Next words by counts, each length mixed with the next shorter one.

    P(w | h) = (c(h w) + t(h) P(w | h')) / (c(h) + t(h)), where h' is h without its oldest word, c counts, and t(h)
    is how many different words were counted after h (Witten and Bell 1991, method C, interpolated). `order` is the
    longest run used: 1 are single words, 2 bigrams, 3 trigrams. `reserved` symbols, from 0 on, are no words and are
    never suggested.

    >>> from shoal.examples import Examples
    >>> told = Examples.of(x=[[0], [2], [3], [0], [2]], y=[2, 3, 4, 2, 4])
    >>> table = NgramTable.held_by([told], vocabulary=5, order=2, least_clients=1)
    >>> NgramModel(table, table.counts(told)).suggest([[0], [3]], top=2).tolist()
    [[2, 4], [4, 2]]
    """

    table: NgramTable
    counts: tuple[Int[np.ndarray, " ngrams"], ...]
    reserved: int = 2

    def __post_init__(self) -> None:
        if tuple(len(counts) for counts in self.counts) != self.table.ngrams:
            raise SettingError(f"there is a count for each run of the table: {self.table.ngrams} of them")

    def suggest(self, x: Any, *, order: int | None = None, top: int = 3) -> Words:
        """The most likely words after each row of words before, the likeliest first; -1 where there are no more.

        Of words that are as likely, the one with the lower number comes first.
        """
        order = self._order(order)
        contexts, place = np.unique(self._contexts(x, order), return_inverse=True)
        return self._best(order, contexts, whole(top, "at least one word is suggested", least=1))[place]

    def probabilities(self, x: Any, words: Any, *, order: int | None = None) -> Float[np.ndarray, " rows"]:
        """How likely each word is after its row of words before; 0 for one that was never counted.

        Over all symbols of the vocabulary they add up to 1.
        """
        order = self._order(order)
        return self._chances(order, self._contexts(x, order), np.asarray(words, np.int64))

    def _order(self, order: int | None) -> int:
        if order is None:
            return self.table.order
        return whole(order, f"runs of 1 to {self.table.order} words were counted", least=1, most=self.table.order)

    def _contexts(self, x: Any, order: int) -> Codes:
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] < order - 1:
            raise DataError(f"each row holds at least the {order - 1} words before, not shape {x.shape[1:]}")
        return context_codes(x, self.table.vocabulary, words=order - 1)

    def _best(self, order: int, contexts: Codes, top: int) -> Words:
        """Suggestions after each context.

        A word that was never counted after the context takes its place by the shorter one's order, so of those
        only the shorter context's best can be among the best.
        """
        if order == 1:
            words = np.argsort(-self.counts[0][self.reserved :], kind="stable")[:top] + self.reserved
            words = np.where(self.counts[0][words] > 0, words, NOTHING)
            padded = np.concatenate([words, np.full(top - len(words), NOTHING)])
            return np.repeat(padded[None], len(contexts), 0)
        shorter, place = np.unique(contexts % self.table.vocabulary ** (order - 2), return_inverse=True)
        fallen = self._best(order - 1, shorter, top)[place].ravel()
        begin, end = self._successors(order, contexts)
        owners = np.repeat(np.arange(len(contexts)), end - begin)
        entries = np.arange(len(owners)) + np.repeat(begin - np.cumsum(end - begin) + (end - begin), end - begin)
        words = self.table.keys[order - 1][entries] % self.table.vocabulary
        own = (words >= self.reserved) & (self.counts[order - 1][entries] > 0)
        fallers = np.repeat(np.arange(len(contexts)), top)
        new = (fallen != NOTHING) & (self._count(order, contexts[fallers], fallen) == 0)
        owners = np.concatenate([owners[own], fallers[new]])
        words = np.concatenate([words[own], fallen[new]])
        return _ranked(owners, words, self._chances(order, contexts[owners], words), (len(contexts), top))

    def _chances(self, order: int, contexts: Codes, words: Codes) -> Float[np.ndarray, " rows"]:
        if order == 1:
            return self.counts[0][words] / max(self.counts[0].sum(), 1)
        lower = self._chances(order - 1, contexts % self.table.vocabulary ** (order - 2), words)
        begin, end = self._successors(order, contexts)
        sums, kinds = self._sums[order - 1]
        seen, different = sums[end] - sums[begin], kinds[end] - kinds[begin]
        mixed = (self._count(order, contexts, words) + different * lower) / np.maximum(seen + different, 1)
        return np.where(seen > 0, mixed, lower)

    def _count(self, order: int, contexts: Codes, words: Codes) -> Codes:
        """How often each word was counted after its context."""
        if not self.table.ngrams[order - 1]:
            return np.zeros(len(words), np.int64)
        places, present = find(self.table.keys[order - 1], contexts * self.table.vocabulary + words)
        return np.where(present, self.counts[order - 1][places], 0)

    def _successors(self, order: int, contexts: Codes) -> tuple[Any, Any]:
        """Where in the table the runs begin and end that start with each context."""
        keys, vocabulary = self.table.keys[order - 1], self.table.vocabulary
        return np.searchsorted(keys, contexts * vocabulary), np.searchsorted(keys, (contexts + 1) * vocabulary)

    @cached_property
    def _sums(self) -> list[tuple[Any, Any]]:
        """For each length: counts, and how many are over 0, added up along the table."""
        return [
            (np.concatenate([[0], np.cumsum(counts)]), np.concatenate([[0], np.cumsum(counts > 0)]))
            for counts in self.counts
        ]


def _ranked(owners: Any, words: Any, scores: Any, shape: tuple[int, int]) -> Words:
    """The words of each owner with the highest scores."""
    order = np.lexsort((words, -scores, owners))
    owners, words = owners[order], words[order]
    rank = np.arange(len(owners)) - np.searchsorted(owners, owners)
    best = rank < shape[1]
    found = np.full(shape, NOTHING)
    found[owners[best], rank[best]] = words[best]
    return found
