"""What operators are shown of a federation: values that travel as JSON. Times are seconds since 1970."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class RoundView(Struct, frozen=True, kw_only=True):
    """One attempt at one round, and how it ended."""

    round: int
    attempt: int
    status: str
    cohort: int
    opened: float
    closed: float | None = None
    clients: int | None = None
    """How many contributions are in it."""
    metrics: dict[str, float] = {}
    rejected: dict[str, int] = {}
    """How many contributions were rejected, for each reason."""
    reason: str = ""


class RunView(Struct, frozen=True, kw_only=True):
    """A run: what became of it so far, and what it waits for."""

    id: str
    name: str
    plan_digest: str
    status: str
    reason: str = ""
    waits_for: str = ""
    """A sentence: why nothing happens right now. Empty while something does, and after the end."""
    round: int
    """How many rounds are closed."""
    rounds: int
    """How many the plan has."""
    there: int = 0
    """How many clients are there that would take a task of this run."""
    tasks: dict[str, int] = {}
    """Tasks of the open round, counted by status."""
    history: tuple[RoundView, ...] = ()
    created: float
    updated: float


class BudgetView(Struct, frozen=True, kw_only=True):
    """What all runs of a federation together may give away of one client."""

    epsilon: float
    delta: float
    since: float


class SpentView(Struct, frozen=True, kw_only=True):
    """What a run has released: how often a sum with each noise, as the ledger names it.

    A run with closed rounds and without releases adds no noise.
    """

    id: str
    name: str
    status: str
    round: int
    rounds: int
    releases: dict[str, int] = {}


class LedgerView(Struct, frozen=True, kw_only=True):
    """The ledger of a federation: every release of every run, the oldest run first, and the budget if it has one."""

    runs: tuple[SpentView, ...] = ()
    budget: BudgetView | None = None


class ClientView(Struct, frozen=True, kw_only=True):
    """A client that is enrolled, and what it does."""

    id: str
    name: str
    status: str
    label: str = ""
    """Of the token with which it enrolled."""
    enrolled: float
    last_seen: float | None = None
    online: bool = False
    tasks: tuple[str, ...] = ()
    """Those that it has taken and not reported."""


class TokenView(Struct, frozen=True, kw_only=True):
    """A token for enrolment, without the secret: the server keeps only its hash."""

    label: str
    uses_left: int
    expires: float
    created: float


def round_view(row: Mapping[str, Any]) -> RoundView:
    """A round from its row."""
    return RoundView(
        round=row["round"], attempt=row["attempt"], status=row["status"], cohort=row["cohort"], opened=row["opened"],
        closed=row["closed"], clients=row["clients"], metrics=json.loads(row["metrics"] or "{}"),
        rejected=json.loads(row["rejected"] or "{}"), reason=row["reason"] or "",
    )  # fmt: skip
