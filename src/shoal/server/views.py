"""What operators are shown of a federation: values that travel as JSON. Times are seconds since 1970."""

from __future__ import annotations

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
