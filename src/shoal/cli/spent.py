"""`shoal privacy --ledger`: what a server's runs have released, and what is left of its budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from shoal.cli.tables import moment, print_json, show
from shoal.operator import Operator
from shoal.privacy import Spent, together
from shoal.privacy.budget import releases_of
from shoal.server.views import LedgerView, SpentView

DELTA = 1e-6


def show_ledger(operator: Operator, *, delta: float | None, as_json: bool) -> None:
    """Prints the ledger of a server: the total, the budget and what is left of it, and each run.

    `delta` is the budget's unless said, or one in a million where there is no budget.
    """
    ledger = operator.ledger()
    at = delta or (ledger.budget.delta if ledger.budget else DELTA)
    total = Counter[str]()
    for run in ledger.runs:
        total.update(run.releases)
    spent = _priced(total, at)
    if as_json:
        print_json(_as_data(ledger, spent, at))
        return
    for word, text in _lines(ledger, spent, at):
        print(f"{word:<12}{text}")
    print()
    rows = [_row(run, at) for run in ledger.runs]
    show(("run", "id", "status", "rounds", "releases", "epsilon"), rows, nothing="There is no run yet.")


def _lines(ledger: LedgerView, spent: Spent | None, delta: float) -> list[tuple[str, str]]:
    lines = [("epsilon", f"0 at delta {delta:g}: nothing was released under noise")] if spent is None else [
        (word, text) for word, text in spent.lines() if word != "noise"
    ]  # fmt: skip
    budget = ledger.budget
    if budget is not None:
        lines.append(("budget", f"epsilon {budget.epsilon:g} at delta {budget.delta:g}, since {moment(budget.since)}"))
        if delta == budget.delta:
            lines.append(("left", f"epsilon {_left(ledger, spent):.4g}"))
    open_ = [run.name for run in ledger.runs if run.round and not run.releases]
    if open_:
        lines.append(("without", f"noise, and not in it: {', '.join(open_)}"))
    return lines


def _left(ledger: LedgerView, spent: Spent | None) -> float:
    assert ledger.budget is not None
    return max(0.0, ledger.budget.epsilon - (spent.epsilon if spent else 0.0))


def _row(run: SpentView, delta: float) -> tuple[str, ...]:
    found = _priced(run.releases, delta)
    epsilon = f"{found.epsilon:.4g}" if found else "none" if run.round else "0"
    rounds = f"{run.round} of {run.rounds}"
    return run.name, run.id, run.status, rounds, f"{sum(run.releases.values())}", epsilon


def _priced(releases: Mapping[str, int], delta: float) -> Spent | None:
    """What releases spend together; None for none."""
    each = [releases_of(event, rounds) for event, rounds in releases.items()]
    return together(each, delta=delta) if each else None


def _as_data(ledger: LedgerView, spent: Spent | None, delta: float) -> dict[str, Any]:
    """The ledger as plain data. A run without noise has no epsilon: null."""
    runs = [
        {
            "id": run.id, "name": run.name, "status": run.status, "round": run.round, "rounds": run.rounds,
            "releases": run.releases, "epsilon": _epsilon(_priced(run.releases, delta), closed=run.round),
        }
        for run in ledger.runs
    ]  # fmt: skip
    same = ledger.budget is not None and ledger.budget.delta == delta
    return {
        "delta": delta, "epsilon": _epsilon(spent, closed=0), "relation": spent.relation if spent else None,
        "budget": ledger.budget, "left": _left(ledger, spent) if same else None, "runs": runs,
    }  # fmt: skip


def _epsilon(spent: Spent | None, *, closed: int) -> float | None:
    if spent is not None:
        return spent.epsilon
    return None if closed else 0.0
