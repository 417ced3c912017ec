"""The keyboard with an epsilon for each role as a whole: counts with noise on the grid, and an LSTM with noise.

A tenth of the roles publish what they say: the vocabulary and the table of what is counted are theirs, since those of
private roles would give away who said what. Everything here is public Shoal: copy the file and change it.
`shoal demo keyboard --epsilon 4` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import shoal
from shoal.analytics import NgramCounts, NgramModel, NgramTable
from shoal.demos.keyboard import HELD_OUT, LEAST_WORDS, SUGGESTIONS, Line, both
from shoal.demos.keyboard_lstm import Model, Vector, recalls

DELTA = 1e-6
PUBLIC = 10
"""One role of so many publishes what it says."""

NORM = 30.0
"""Of a role's counts, a third of its square for each length of runs."""
CUT = 4.0
"""Sums under so many deviations of their noise say too little, and are dropped."""

RATE, ROUNDS, LENGTH, CLIPPED = 0.1, 20, 32, 0.2
"""Of the LSTM: who is in a round, how many rounds, words of a row, and the norm of one role's change."""


@dataclass(frozen=True, eq=False)
class Split:
    """What public roles say, what private ones say first and last, and the words that the public ones use."""

    public: shoal.Texts
    private: shoal.Texts
    test: shoal.Texts
    vocabulary: shoal.Vocabulary

    @staticmethod
    def of(texts: shoal.Texts, *, words: int) -> Split:
        """Roles with enough words; which of them are public is drawn, not chosen."""
        first, last = texts.at_least(LEAST_WORDS).split(HELD_OUT)
        drawn = np.random.default_rng(0).permutation(sorted(first.clients))
        public = set(drawn[: -(-len(drawn) // PUBLIC)].tolist())
        published = shoal.Texts({name: said for name, said in first.clients.items() if name in public})
        private, test = (
            shoal.Texts({name: said for name, said in part.clients.items() if name not in public})
            for part in (first, last)
        )
        return Split(published, private, test, published.vocabulary(words, least_clients=min(2, len(public))))


@dataclass(frozen=True)
class Private:
    """The demo's table, what counting and training spent, and both together."""

    roles: tuple[int, int]
    """Public ones, and private ones."""
    vocabulary: int
    lines: tuple[Line, ...]
    spent: dict[str, shoal.privacy.Spent]


def study(
    split: Split, epsilon: float, rounds: int = ROUNDS, *, tell: Callable[[str], None] = lambda step: None
) -> Private:  # fmt: skip
    """Counts, then trains, each for half of epsilon and of delta; without rounds of training counting has all of it."""
    share = epsilon / 2 if rounds else epsilon
    delta = DELTA / 2 if rounds else DELTA
    tell("counting")
    plan, lines = counted(split, share, delta)
    plans = {"counting": plan}
    if rounds:
        tell("training")
        plans["training"], more = trained(split, share, delta, rounds, tell=lambda: tell("round"))
        lines += more
    spent = {name: shoal.privacy.spent(one, delta=delta) for name, one in plans.items()}
    if rounds:
        spent["together"] = shoal.privacy.together(list(plans.values()), delta=DELTA)
    return Private((len(split.public), len(split.private)), len(split.vocabulary), tuple(lines), spent)


def counting(table: NgramTable, *, epsilon: float, delta: float, threshold: int) -> shoal.Plan:
    """One secure sum of all private roles' counts, clipped, with integer noise; not a mean, so one divides it."""
    noised = shoal.private_mean(epsilon=epsilon, delta=delta, norm=NORM, rounds=1, clients=1, threshold=threshold)
    lengths = tuple(part.name for part in NgramCounts(table).layout.parts)
    chain: Any = shoal.Clip(NORM, groups=lengths)
    for step in (*noised.steps[1:], noised.meeting, noised.finish):
        chain = chain >> step
    return shoal.Plan(NgramCounts(table, aggregation=chain), rounds=1)


def counted(split: Split, epsilon: float, delta: float) -> tuple[shoal.Plan, list[Line]]:
    """The plan, and recalls of trigrams: of public roles, of private ones without and with noise, of all with noise."""
    size = len(split.vocabulary)
    published, learned, tested = (
        texts.contexts(split.vocabulary) for texts in (split.public, split.private, split.test)
    )  # fmt: skip
    table = NgramTable.held_by((published[name] for name in published), vocabulary=size, least_clients=1)
    plan = counting(table, epsilon=epsilon, delta=delta, threshold=max(2, len(split.private) // 2))
    chain: Any = plan.algorithm.aggregation
    layout = plan.algorithm.layout
    sums = shoal.simulate(plan, learned, progress="off").state.counts
    least = CUT * chain.finish.multiplier * chain.sensitivity(layout)
    noised = tuple(np.where(found > least, found, 0) for found in sums)
    public, exact = table.counts(published.everything()), table.counts(learned.everything())
    x, y = tested.columns["x"], tested.columns["y"]

    def line(way: str, counts: tuple[Any, ...], leaves: str) -> Line:
        return Line(f"trigrams, {way}", both(NgramModel(table, counts).suggest(x, top=SUGGESTIONS), y), leaves)

    sent = f"{layout.size:,} counts"
    added = tuple(one + other for one, other in zip(public, noised, strict=True))
    return plan, [
        line("public roles", public, "nothing"),
        line("private roles, no noise", exact, sent),
        line(f"private roles, epsilon {epsilon:g}", noised, f"{sent}, masked"),
        line(f"public, and private with epsilon {epsilon:g}", added, f"{sent}, masked"),
    ]


def training(model: Model, rounds: int, *, roles: int, epsilon: float | None, delta: float) -> shoal.Plan:
    """Federated averaging of Poisson samples with the least noise that spends epsilon; None: clipped, without noise."""
    who = shoal.Poisson(RATE)
    chain: Any = shoal.Clip(CLIPPED) >> shoal.PlainSum() >> shoal.Mean()
    if epsilon is not None:
        chain = shoal.private_mean(
            epsilon=epsilon, delta=delta, norm=CLIPPED, rounds=rounds, cohort=who, clients=max(1, round(roles * RATE))
        )
    work = shoal.FedAvg(model, batch_size=8, client_optimizer=shoal.sgd(0.5), aggregation=chain)
    return shoal.Plan(work, rounds=rounds, cohort=who)


def trained(
    split: Split, epsilon: float, delta: float, rounds: int, *, tell: Callable[[], None] = lambda: None
) -> tuple[shoal.Plan, list[Line]]:
    """The plan with noise, and recalls of an LSTM: of public roles, and trained on by private ones without and with it.

    It is a small one: noise is added to each of its weights, and so grows with them.
    """
    model = shoal.models.word_lstm(len(split.vocabulary), embedding=16, hidden=32)
    published, rows, test = (
        texts.rows(split.vocabulary, length=LENGTH) for texts in (split.public, split.private, split.test)
    )
    ours = shoal.FedAvg(model, epochs=4, batch_size=16, client_optimizer=shoal.adam(0.005))
    start = shoal.simulate(shoal.Plan(ours, rounds=1), published.pooled(), progress="off").vector

    def learned(plan: shoal.Plan) -> Vector:
        return shoal.simulate(
            plan, rows, start=start, every=1, progress="off", callbacks=[lambda rows, run: tell()]
        ).vector  # fmt: skip

    plain, noised = (
        training(model, rounds, roles=len(rows), epsilon=share, delta=delta) for share in (None, epsilon)
    )  # fmt: skip
    leaves = f"{model.layout.size:,} weights a round"
    return noised, [
        Line("LSTM, public roles", recalls(model, start, test)),
        Line("LSTM, then private ones, no noise", recalls(model, learned(plain), test), leaves),
        Line(f"LSTM, then private ones, epsilon {epsilon:g}", recalls(model, learned(noised), test), leaves),
    ]
