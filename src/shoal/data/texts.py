"""What clients wrote, as sentences; and from sentences to numbers: a vocabulary, contexts, rows of equal length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int

from shoal.data.population import Population
from shoal.errors import DataError
from shoal.settings import number, whole

START = 0
"""The symbol before the first word of a sentence; as a label, nothing to predict."""
UNKNOWN = 1
"""The symbol of every word outside the vocabulary."""

Sentence = tuple[str, ...]

_ENDS = re.compile(r"[.?!;:]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]*)*|'[^\W\d_]+")


def sentences(text: str) -> tuple[Sentence, ...]:
    """The sentences of a text as words in lower case; each of . ? ! ; : ends one, and digits are left out.

    >>> sentences("Who's there? Nay, answer me: stand, and unfold yourself.")
    (("who's", 'there'), ('nay', 'answer', 'me'), ('stand', 'and', 'unfold', 'yourself'))
    """
    found = (tuple(_WORD.findall(part)) for part in _ENDS.split(text.lower().replace("\u2019", "'")))
    return tuple(words for words in found if words)


def unfinished(text: str) -> Sentence:
    """The words of the sentence that a text ends in; none where a mark has just ended one.

    >>> unfinished("Long live the king! The"), unfinished("Long live the king!")
    (('the',), ())
    """
    found = sentences(_ENDS.split(text)[-1])
    return found[0] if found else ()


@dataclass(frozen=True)
class Vocabulary:
    """Words by number: 0 is the start of a sentence, 1 every unknown word, the words themselves follow.

    >>> words = Vocabulary(("the", "king"))
    >>> words.numbers(("the", "fool")), len(words)
    ([2, 1], 4)
    """

    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words) + 2

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words, 2)}

    def numbers(self, sentence: Iterable[str]) -> list[int]:
        """The number of every word."""
        return [self._places.get(word, UNKNOWN) for word in sentence]

    def word(self, place: int) -> str:
        """The word of a number; an empty text for a symbol that is no word."""
        return self.words[place - 2] if place >= 2 else ""


@dataclass(frozen=True)
class Texts:
    """What each client wrote: sentences in the order of time.

    >>> texts = Texts.of({"Bernardo": ["Who's there?", "Long live the king!"], "Francisco": ["Bernardo?"]})
    >>> texts
    Texts of 2 clients, 3 sentences, 7 words
    """

    clients: Mapping[str, tuple[Sentence, ...]] = field(repr=False)

    @staticmethod
    def of(written: Mapping[str, Iterable[str]]) -> Texts:
        """Texts from what each client wrote, in the order of time; a client without a word is left out."""
        clients = {name: tuple(s for text in texts for s in sentences(text)) for name, texts in written.items()}
        return Texts({name: said for name, said in clients.items() if said})

    def __post_init__(self) -> None:
        if not self.clients:
            raise DataError("texts have at least one client who wrote a word")

    def __len__(self) -> int:
        return len(self.clients)

    def __repr__(self) -> str:
        said = sum(map(len, self.clients.values()))
        return f"Texts of {len(self)} clients, {said} sentences, {sum(self.sizes.values())} words"

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many words each client wrote."""
        return {name: sum(map(len, said)) for name, said in self.clients.items()}

    def at_least(self, words: int) -> Texts:
        """The clients who wrote so many words; DataError if there is none."""
        words = whole(words, "a client wrote at least one word", least=1)
        kept = {name: said for name, said in self.clients.items() if self.sizes[name] >= words}
        if not kept:
            raise DataError(f"no client wrote {words} words; the most is {max(self.sizes.values())}")
        return Texts(kept)

    def split(self, fraction: float) -> tuple[Texts, Texts]:
        """Two texts of the same clients; the second has the last sentences of each, at least that fraction.

        A client with a single sentence keeps it in the first and is not in the second.
        """
        fraction = number(fraction, "the fraction to hold out is over 0 and under 1", lambda v: 0 < v < 1)
        cuts = {name: max(int(len(said) * (1 - fraction)), 1) for name, said in self.clients.items()}
        first = {name: said[: cuts[name]] for name, said in self.clients.items()}
        second = {name: said[cuts[name] :] for name, said in self.clients.items() if len(said) > 1}
        if not second:
            raise DataError("every client has a single sentence, so there is nothing to hold out")
        return Texts(first), Texts(second)

    def vocabulary(self, size: int, *, least_clients: int = 2) -> Vocabulary:
        """The `size` words that are used most, of those that at least `least_clients` clients use.

        A word that one client alone uses is nobody else's business. Choosing the words looks at all texts: a
        deployment begins with a public list, or asks for words with the protections of any other query.
        """
        size = whole(size, "a vocabulary has at least one word", least=1)
        least = whole(least_clients, "a word is used by at least one client", least=1)
        used: Counter[str] = Counter()
        users: Counter[str] = Counter()
        for said in self.clients.values():
            words = Counter(word for sentence in said for word in sentence)
            used.update(words)
            users.update(words.keys())
        shared = sorted((word for word in used if users[word] >= least), key=lambda word: (-used[word], word))
        if not shared:
            raise DataError(f"no word is used by {least} clients")
        return Vocabulary(tuple(shared[:size]))

    def contexts(self, vocabulary: Vocabulary, *, before: int = 2) -> Population:
        """A row for each word: `x` the words before it in its sentence, `y` the word; for counting.

        >>> texts = Texts.of({"Bernardo": ["Long live the king!"]})
        >>> texts.contexts(Vocabulary(("the", "king"))).columns["x"].tolist()
        [[0, 0], [0, 1], [1, 1], [1, 2]]
        """
        before = whole(before, "a context is at least one word", least=1)

        def rows(said: tuple[Sentence, ...]) -> tuple[Any, Any]:
            padded = [[START] * before + vocabulary.numbers(sentence) for sentence in said]
            x = [words[i : i + before] for words in padded for i in range(len(words) - before)]
            return np.array(x, np.int32), np.array([word for words in padded for word in words[before:]], np.int32)

        return Population.from_clients({name: rows(said) for name, said in self.clients.items()})

    def rows(self, vocabulary: Vocabulary, *, length: int = 32) -> Population:
        """Rows of words for a model of sequences: `x` starts with the sentence's start, `y` is the word after each.

        Sentences follow each other in a row while they fit, so that little of it is empty; a longer one goes on
        in the next row. Places after the last word hold 0 in `x` and in `y`.

        >>> texts = Texts.of({"Bernardo": ["Long live the king! The king."]})
        >>> texts.rows(Vocabulary(("the", "king")), length=8).columns["y"].tolist()
        [[1, 1, 2, 3, 2, 3, 0, 0]]
        """
        length = whole(length, "a row has at least one word", least=1)
        return Population.from_clients(
            {
                name: _packed([vocabulary.numbers(sentence) for sentence in said], length)
                for name, said in self.clients.items()
            }
        )


def _packed(
    said: list[list[int]], length: int
) -> tuple[Int[np.ndarray, "rows length"], Int[np.ndarray, "rows length"]]:
    """The words before and the words to predict, whole sentences to a row while they fit."""
    x: list[list[int]] = []
    y: list[list[int]] = []
    for words in said:
        before = [START, *words[:-1]]
        for i in range(0, len(words), length):
            part = slice(i, i + length)
            if not y or len(y[-1]) + len(words[part]) > length:
                x.append([])
                y.append([])
            x[-1] += before[part]
            y[-1] += words[part]
    return _filled(x, length), _filled(y, length)


def _filled(rows: list[list[int]], length: int) -> Int[np.ndarray, "rows length"]:
    return np.array([row + [0] * (length - len(row)) for row in rows], np.int32)
