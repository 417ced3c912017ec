"""Sentences, vocabularies and rows of words."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shoal.data.texts import START, UNKNOWN, Texts, Vocabulary, sentences
from shoal.errors import DataError, SettingError

WORDS = st.sampled_from(["a", "b", "c", "d", "e"])
TEXTS = st.dictionaries(
    st.sampled_from(["x", "y", "z"]),
    st.lists(st.lists(WORDS, min_size=1, max_size=9).map(tuple), min_size=1, max_size=8).map(tuple),
    min_size=1,
).map(Texts)


def test_sentences_are_words_in_lower_case_without_marks_and_digits():
    assert sentences("O, What's \u2019tis? Never 47; NO-one!  ") == (("o", "what's", "'tis"), ("never",), ("no", "one"))
    assert sentences("... 12 - ?") == ()


def test_texts_leave_out_who_says_nothing():
    assert list(Texts.of({"a": ["Well."], "b": ["...", ""]}).clients) == ["a"]
    with pytest.raises(DataError, match="at least one client"):
        Texts.of({"a": ["?"]})


@given(TEXTS, st.floats(0.01, 0.99))
def test_a_split_keeps_every_sentence_in_the_order_of_time(texts, fraction):
    assume(any(len(said) > 1 for said in texts.clients.values()))
    first, second = texts.split(fraction)
    for name, said in texts.clients.items():
        assert first.clients[name] + second.clients.get(name, ()) == said
        assert first.clients[name]


def test_texts_of_a_single_sentence_each_cannot_be_split():
    with pytest.raises(DataError, match="single sentence"):
        Texts.of({"a": ["Well."]}).split(0.5)


def test_only_clients_with_enough_words_are_kept():
    texts = Texts.of({"a": ["one two three"], "b": ["one"]})
    assert list(texts.at_least(2).clients) == ["a"]
    with pytest.raises(DataError, match="the most is 3"):
        texts.at_least(4)


def test_a_vocabulary_has_the_words_used_most_that_several_clients_use():
    texts = Texts.of({"a": ["pin pin pin pin the the king"], "b": ["the king fool"]})
    assert texts.vocabulary(10).words == ("the", "king")
    assert texts.vocabulary(10, least_clients=1).words == ("pin", "the", "king", "fool")
    assert texts.vocabulary(1).words == ("the",)
    with pytest.raises(DataError, match="by 3 clients"):
        texts.vocabulary(10, least_clients=3)
    with pytest.raises(SettingError, match="at least one word"):
        texts.vocabulary(0)


def test_a_vocabulary_gives_numbers_for_words_and_words_for_numbers():
    words = Vocabulary(("the", "king"))
    assert [words.word(n) for n in words.numbers(["king", "the", "xyz"])] == ["king", "the", ""]


@given(TEXTS, st.integers(1, 3))
def test_contexts_have_a_row_for_each_word_with_those_before_it(texts, before):
    vocabulary = texts.vocabulary(3, least_clients=1)
    population = texts.contexts(vocabulary, before=before)
    for name, said in texts.clients.items():
        wanted = []
        for sentence in said:
            words = [START] * before + vocabulary.numbers(sentence)
            wanted += [(tuple(words[i - before : i]), words[i]) for i in range(before, len(words))]
        rows = population[name]
        assert list(zip(map(tuple, rows.rows("x").tolist()), rows.rows("y").tolist(), strict=True)) == wanted


@given(TEXTS, st.integers(1, 12))
def test_rows_hold_every_word_once_after_the_word_before_it(texts, length):
    vocabulary = texts.vocabulary(3, least_clients=1)
    population = texts.rows(vocabulary, length=length)
    for name, said in texts.clients.items():
        x, y = population[name].rows("x").ravel(), population[name].rows("y").ravel()
        pairs = Counter()
        for sentence in said:
            words = vocabulary.numbers(sentence)
            pairs.update(zip([START, *words], words, strict=False))
        assert y[y > 0].tolist() == [n for sentence in said for n in vocabulary.numbers(sentence)]
        assert Counter(zip(x[y > 0].tolist(), y[y > 0].tolist(), strict=True)) == pairs
        assert not x[y == 0].any()


def test_short_sentences_share_a_row_and_no_row_is_opened_that_a_sentence_does_not_need():
    texts = Texts({"a": (("u",) * 3, ("u",) * 2, ("u",) * 4, ("u",) * 7)})
    rows = texts.rows(Vocabulary(("v",)), length=5).columns["y"]
    assert (rows == UNKNOWN).sum(1).tolist() == [5, 4, 5, 2]
    assert rows.dtype == np.int32
