"""What a federation's runs released of its clients, written down before it is released, and what its budget leaves."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from shoal.errors import BudgetError
from shoal.extras import needed
from shoal.plan import Plan
from shoal.privacy import together
from shoal.privacy.budget import Budget, event_of, releases_of, served, why_not_served
from shoal.server.views import BudgetView, LedgerView, SpentView
from shoal.store.faults import point
from shoal.store.store import Store, Write

Rounds = Mapping[str, int]
"""How many rounds of each event: a plan's noise as text, from `event_of`."""


class Spending:
    """The ledger of a store, with every release that any run of it made, and the budget of all of them together.

    A round has its row before its noise is drawn. If the process ends between the two, the round is closed again with
    other noise and has a second row: nobody knows that the first was not seen, so both count. Rows are only ever added.
    """

    def __init__(self, store: Store, budget: Budget | None = None) -> None:
        self._store, self.budget = store, budget
        if budget is not None:  # now, and not in the middle of a round
            needed("dp_accounting", "dp")
        self._spent = Counter[str]()
        for row in store.read("ledger_counts"):
            self._spent[row["event"]] += row["releases"]
        self._edges = dict[bool, tuple[float, float]]()  # what fits, and what does not; by whether noise is discrete

    def view(self) -> LedgerView:
        """All of it, from the store."""
        releases = dict[str, dict[str, int]]()
        for row in self._store.read("ledger_counts"):
            releases.setdefault(row["run"], {})[row["event"]] = row["releases"]
        runs = tuple(
            SpentView(
                id=row["id"], name=row["name"], status=row["status"], round=row["round"],
                rounds=json.loads(bytes(row["plan"]))["rounds"], releases=releases.get(row["id"], {}),
            )
            for row in self._store.read("runs")
        )  # fmt: skip
        kept = self._store.read("budget") if self.budget is not None else []
        return LedgerView(runs=runs, budget=BudgetView(**kept[0]) if kept else None)

    def check(self, plan: Plan, others: Iterable[tuple[Plan, int]]) -> None:
        """BudgetError, with numbers, for a run that would overspend. `others` are open runs with the rounds they plan.

        SettingError for noise whose epsilon nobody knows, whether there is a budget or not.
        """
        chain = plan.algorithm.aggregation
        if chain.private and not chain.local:
            served(plan)
        if self.budget is None:
            return
        if why := why_not_served(plan):
            raise BudgetError(why)
        event = event_of(plan)
        now = Counter(dict(self._spent))  # which may grow meanwhile: this is called from a thread
        before = now + planned(others)
        after = before + Counter({event: plan.rounds})
        if self._fits(after):
            return
        most = self._most(before, event, plan.rounds)
        spent, open_too, this_too = (self._price(total) for total in (now, before, after))
        raise BudgetError(
            f"the budget of this federation is {self.budget}. Spent is epsilon {spent:.4g}, {open_too:.4g} with what "
            f"open runs plan, and it would be {this_too:.4g} with the {plan.rounds:,} rounds of this run: {most:,} of "
            "them fit. Plan fewer rounds, or more noise (shoal.private_mean plans it)"
        )

    def why_not(self, plan: Plan) -> str:
        """Why one more round of a run must not be released, as a sentence; "" if it may."""
        if self.budget is None:
            return ""
        if why := why_not_served(plan):
            return why
        after = self._spent + Counter({event_of(plan): 1})
        if self._fits(after):
            return ""
        return (
            f"the budget of this federation, {self.budget}, is spent: with one more round of this run it would be "
            f"epsilon {self._price(after):.4g}"
        )

    async def record(self, plan: Plan, *, run: str, round: int, attempt: int, time: float) -> None:
        """Makes durable that a round is released, before it is; BudgetError if that would overspend.

        A plan without noise has no row, nor has one in which clients make their contributions private themselves.
        """
        if why := self.why_not(plan):
            raise BudgetError(why)
        if not plan.algorithm.aggregation.private or plan.algorithm.aggregation.local:
            return
        event = event_of(plan)
        self._spent[event] += 1
        point("release-before")
        row = {"run": run, "round": round, "attempt": attempt, "time": time, "event": event}
        await asyncio.wrap_future(self._store.write(Write("ledger_add", row, wants=1)))
        point("release-recorded")

    def _fits(self, total: Rounds) -> bool:
        """Whether so much is within the budget. Noise adds up by its inverse squares, so few sums need be priced."""
        assert self.budget is not None
        each = [releases_of(event, rounds) for event, rounds in total.items()]
        weight = math.fsum(one.rounds / one.multiplier**2 for one in each)
        if any(one.shared for one in each):  # whose losses are no function of that alone
            return self._price(total) <= self.budget.epsilon
        kind = any(one.discrete for one in each)
        low, high = self._edges.get(kind, (0.0, math.inf))
        if weight <= low * (1 + 1e-12):
            return True
        if weight >= high:
            return False
        fits = self._price(total) <= self.budget.epsilon
        self._edges[kind] = (weight, high) if fits else (low, weight)
        return fits

    def _price(self, total: Rounds) -> float:
        """Epsilon at the budget's delta."""
        assert self.budget is not None
        each = [releases_of(event, rounds) for event, rounds in total.items() if rounds]
        return together(each, delta=self.budget.delta).epsilon if each else 0.0

    def _most(self, before: Rounds, event: str, rounds: int) -> int:
        """How many rounds of an event fit beside what is there."""
        fit, not_fit = 0, rounds
        while not_fit - fit > 1:
            middle = (fit + not_fit) // 2
            fit, not_fit = (
                (middle, not_fit) if self._fits(Counter(before) + Counter({event: middle})) else (fit, middle)
            )
        return fit


def planned(runs: Iterable[tuple[Plan, int]]) -> Counter[str]:
    """How many rounds of each event some runs may still release."""
    found = Counter[str]()
    for plan, rounds in runs:
        if not why_not_served(plan):
            found[event_of(plan)] += rounds
    return found
