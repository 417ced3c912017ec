"""Whatever happens in whatever order, and wherever the power fails: the laws of a run's rounds.

`Fleet` makes things happen, `Book` keeps what is durable and refuses what breaks a law.
"""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

import shoal
from shoal.cohort import Everyone, Fixed, Fraction, Poisson
from shoal.rounds.buffered import BufferedMachine
from shoal.rounds.rules import Rules
from shoal.rounds.synchronous import RunMachine
from tests.rounds.book import Book
from tests.rounds.fleet import DEADLINE_S, NAMES, PATIENCE_S, Fleet


@st.composite
def rules_and_samplers(draw):
    at_least = draw(st.integers(1, 3))
    fixed = st.builds(Fixed, st.integers(at_least, 8))
    sampler = draw(st.sampled_from((Everyone(), Fraction(0.5), Poisson(0.5))) | fixed)
    least = at_least if isinstance(sampler, Everyone | Fixed) else len(NAMES)
    return Rules(
        at_least=at_least,
        wait_for=draw(st.none() | st.integers(least, 8)),
        over_selection=draw(st.sampled_from((1.0, 1.5, 3.0))),
        deadline_s=DEADLINE_S,
        patience_s=PATIENCE_S,
        retries=draw(st.integers(0, 2)),
    ), sampler


class SynchronousRounds(Fleet):
    @initialize(chosen=rules_and_samplers(), rounds=st.integers(1, 3), seed=st.integers(0, 9))
    def begins(self, chosen, rounds, seed):
        rules, self.sampler = chosen
        key = shoal.Key.from_seed(seed)
        book = Book(rounds=rounds, at_least=rules.at_least, asked=rules.asked)
        self.begin(book, lambda: RunMachine("run", rules=rules, sampler=self.sampler, rounds=rounds, key=key))

    def may_be_resumed(self):
        return 60 if isinstance(self.sampler, Poisson) else super().may_be_resumed()


class Buffers(Fleet):
    @initialize(
        buffer=st.integers(1, 4), concurrency=st.integers(1, 7), most_stale=st.integers(0, 3),
        retries=st.integers(0, 2), wait_for=st.none() | st.integers(1, 8), rounds=st.integers(1, 5),
    )  # fmt: skip
    def begins(self, buffer, concurrency, most_stale, retries, wait_for, rounds):
        rules = Rules(
            wait_for=wait_for, deadline_s=DEADLINE_S, patience_s=PATIENCE_S, retries=retries, buffer=buffer,
            concurrency=concurrency, most_stale=most_stale,
        )  # fmt: skip
        book = Book(rounds=rounds, at_least=1, buffer=buffer)
        self.begin(book, lambda: BufferedMachine("run", rules=rules, rounds=rounds))


PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining a failure would take minutes
TestSynchronousRounds = SynchronousRounds.TestCase
TestSynchronousRounds.settings = settings(max_examples=200, stateful_step_count=40, phases=PHASES)
TestBuffers = Buffers.TestCase
TestBuffers.settings = settings(max_examples=200, stateful_step_count=40, phases=PHASES)
