"""Federated counts and next words beside Counter and plain loops."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shoal
from shoal.analytics import NgramCounts, NgramModel, NgramTable
from shoal.data.texts import START, Texts
from shoal.errors import DataError, SettingError
from shoal.examples import Examples

WORDS = st.sampled_from(list("abcde"))
TEXTS = st.dictionaries(
    st.sampled_from(["x", "y", "z"]),
    st.lists(st.lists(WORDS, min_size=1, max_size=6).map(tuple), min_size=1, max_size=6).map(tuple),
    min_size=1,
).map(Texts)


def told(texts, vocabulary):
    return texts.contexts(vocabulary, before=2)


def runs(said, vocabulary, length):
    """Every run of `length` words that ends in a word, by hand."""
    found = Counter()
    for sentence in said:
        words = [START] * (length - 1) + vocabulary.numbers(sentence)
        found.update(tuple(words[i : i + length]) for i in range(len(words) - length + 1))
    return found


def by_run(table, counts, length):
    digits = [tuple(int(code) // table.vocabulary**i % table.vocabulary for i in reversed(range(length)))
              for code in table.keys[length - 1]]  # fmt: skip
    return {run: int(n) for run, n in zip(digits, counts[length - 1], strict=True) if n}


@settings(max_examples=40)
@given(TEXTS, st.integers(1, 3))
def test_the_federated_counts_are_the_pooled_ones_exactly(texts, least):
    vocabulary = texts.vocabulary(4, least_clients=1)
    population = told(texts, vocabulary)
    clients = [population[name] for name in population]
    table = NgramTable.held_by(clients, vocabulary=len(vocabulary), least_clients=least)
    counts = shoal.simulate(shoal.Plan(NgramCounts(table), rounds=1), population).state.counts
    for length in (1, 2, 3):
        each = [runs(said, vocabulary, length) for said in texts.clients.values()]
        pooled = sum(each, Counter())
        held = {run: n for run, n in pooled.items() if length == 1 or sum(run in one for one in each) >= least}
        assert by_run(table, counts, length) == held


def test_a_second_round_does_not_count_twice():
    texts = Texts.of({"a": ["the king the king"], "b": ["the fool"]})
    vocabulary = texts.vocabulary(9, least_clients=1)
    population = told(texts, vocabulary)
    table = NgramTable.held_by([population["a"]], vocabulary=len(vocabulary), order=2, least_clients=1)
    once, twice = (
        shoal.simulate(shoal.Plan(NgramCounts(table), rounds=rounds), population).state.counts for rounds in (1, 2)
    )
    for one, two in zip(once, twice, strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_is_not_in_the_table_leaves_no_client():
    texts = Texts.of({"a": ["the king"], "b": ["the king"], "c": ["my pin"]})
    vocabulary = texts.vocabulary(9, least_clients=1)
    population = told(texts, vocabulary)
    table = NgramTable.held_by([population["a"]], vocabulary=len(vocabulary), order=2, least_clients=1)
    counts = table.counts(population["c"])
    assert counts[0].sum() == 2 and counts[1].sum() == 0
    assert len(NgramCounts(table).local(None, population["c"], None, None).value) == sum(table.ngrams)


def slow_chance(runs_of, run, symbols):
    """Witten and Bell's interpolation in plain recursion."""
    if len(run) == 1:
        return runs_of[1][run] / sum(runs_of[1].values())
    lower = slow_chance(runs_of, run[1:], symbols)
    after = [n for other, n in runs_of[len(run)].items() if other[:-1] == run[:-1]]
    if not after:
        return lower
    return (runs_of[len(run)][run] + len(after) * lower) / (sum(after) + len(after))


@settings(max_examples=25)
@given(TEXTS, st.integers(1, 3))
def test_probabilities_are_interpolated_and_add_up_to_one(texts, order):
    vocabulary = texts.vocabulary(3, least_clients=1)
    data = told(texts, vocabulary).everything()
    table = NgramTable.held_by([data], vocabulary=len(vocabulary), least_clients=1)
    model = NgramModel(table, table.counts(data))
    said = [s for said in texts.clients.values() for s in said]
    runs_of = {length: runs(said, vocabulary, length) for length in (1, 2, 3)}
    symbols = range(len(vocabulary))
    for before in [(0, 0), (0, 2), (2, 1), (2, 2)]:
        chances = model.probabilities([before] * len(symbols), symbols, order=order)
        context = before[len(before) - order + 1 :]
        np.testing.assert_allclose(chances, [slow_chance(runs_of, (*context, w), symbols) for w in symbols])
        np.testing.assert_allclose(chances.sum(), 1)


@settings(max_examples=25)
@given(TEXTS, st.integers(1, 3), st.integers(1, 4))
def test_suggestions_are_the_most_likely_words_of_the_whole_vocabulary(texts, order, top):
    vocabulary = texts.vocabulary(4, least_clients=1)
    data = told(texts, vocabulary).everything()
    table = NgramTable.held_by([data], vocabulary=len(vocabulary), least_clients=1)
    model = NgramModel(table, table.counts(data))
    contexts = np.array([(a, b) for a in range(len(vocabulary)) for b in range(len(vocabulary))])
    words = np.arange(2, len(vocabulary))
    for context, found in zip(contexts, model.suggest(contexts, order=order, top=top), strict=True):
        chances = model.probabilities(np.repeat(context[None], len(words), 0), words, order=order)
        wanted = sorted((-chance, word) for chance, word in zip(chances, words, strict=True) if chance > 0)[:top]
        got = model.probabilities(np.repeat(context[None], top, 0), np.maximum(found, 0), order=order)
        assert (found >= 0).sum() == len(wanted)
        np.testing.assert_allclose(got[: len(wanted)], [-chance for chance, _ in wanted])
        assert len(set(found.tolist())) == len(found) or -1 in found


def test_recall_counts_the_suggestions_that_came_true():
    suggested = np.array([[3, 4, 5], [2, 3, -1], [7, 8, 9]])
    assert shoal.models.recall(suggested, [4, 9, 7]) == pytest.approx(2 / 3)
    assert shoal.models.recall(suggested[:, :1], [4, 9, 7]) == pytest.approx(1 / 3)


def test_rows_that_are_no_contexts_get_a_sentence():
    table = NgramTable(5, (range(5), [7], [30]))
    plan = shoal.Plan(NgramCounts(table), rounds=1)
    with pytest.raises(DataError, match="before=2"):
        shoal.simulate(plan, shoal.Population.from_arrays([[1], [2]], [1, 2], groups=["a", "b"]))
    with pytest.raises(DataError, match="from 0 to 4"):
        shoal.simulate(plan, shoal.Population.from_arrays([[1, 2], [2, 5]], [1, 2], groups=["a", "b"]))
    with pytest.raises(DataError, match="2 words before"):
        NgramModel(table, table.counts(Examples.of(x=[[1, 2]], y=[3]))).suggest([[1]])


def test_tables_that_cannot_be_are_refused():
    with pytest.raises(SettingError, match="every single word"):
        NgramTable(5, ([0, 2], []))
    with pytest.raises(SettingError, match="sorted"):
        NgramTable(3, (range(3), [4, 1]))
    with pytest.raises(SettingError, match="64 bits"):
        NgramTable.held_by([], vocabulary=10_000, order=5)
    with pytest.raises(SettingError, match="a count for each"):
        NgramModel(NgramTable(3, (range(3), [4])), (np.zeros(3),))
    with pytest.raises(SettingError, match="1 to 2 words"):
        NgramModel(NgramTable(3, (range(3), [4])), (np.zeros(3), np.zeros(1))).suggest([[0]], order=3)


def test_tables_of_other_runs_are_other_plans():
    one, same, other = (NgramTable(3, (range(3), [code])) for code in (4, 4, 5))
    assert one == same != other
    assert shoal.Plan(NgramCounts(one), rounds=1).digest() != shoal.Plan(NgramCounts(other), rounds=1).digest()
