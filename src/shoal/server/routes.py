"""The operators' API as a table: what is served, what `openapi.json` says, and what the command line calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from shoal.server.views import ClientView, LedgerView, RunView, TokenView
from shoal.wire.messages import Name


class NewRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan that is to be run: its description, as `shoal.wire.plans.plan_bytes` gives it."""

    plan: Annotated[str, Meta(max_length=2 * 1024 * 1024)]
    name: Name
    rules: dict[str, Any] | None = None
    """The fields of `shoal.Rules` that are not to be as they are by default."""
    seed: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class NewToken(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token that is to be made: how often it may be used, and for how long."""

    label: Annotated[str, Meta(max_length=100)] = ""
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    lasts_s: Annotated[float, Meta(gt=0, le=366 * 86_400)] = 7 * 86_400.0


class Token(Struct, frozen=True, kw_only=True):
    """A token that was made. Nobody can ask for it a second time."""

    token: str
    expires: float


@dataclass(frozen=True)
class Route:
    """One operation: `name` says what it does, `body` and `answer` are what travels as JSON, None for what does not."""

    name: str
    method: Literal["GET", "POST"]
    path: str
    summary: str
    role: Literal["viewer", "operator"] = "viewer"
    body: Any = None
    answer: Any = None
    kind: str = "application/json"
    status: int = 200


ROUTES: tuple[Route, ...] = (
    Route("runs", "GET", "/v1/runs", "All runs, the newest first, without their histories.", answer=list[RunView]),
    Route("submit", "POST", "/v1/runs", "Begins a run of a plan.", "operator", NewRun, RunView, status=201),
    Route("run", "GET", "/v1/runs/{run}", "A run by id or name, with its history.", answer=RunView),
    Route("pause", "POST", "/v1/runs/{run}:pause", "No new round; an open one goes on to its end.", "operator",
          answer=RunView),
    Route("resume", "POST", "/v1/runs/{run}:resume", "Goes on after a pause, or after a failure.", "operator",
          answer=RunView),
    Route("cancel", "POST", "/v1/runs/{run}:cancel", "Ends it now.", "operator", answer=RunView),
    Route("model", "GET", "/v1/models/{run}", "The run's model after its last closed round, as safetensors.",
          kind="application/octet-stream"),
    Route("ledger", "GET", "/v1/ledger", "What the runs have released of clients under noise, and the budget.",
          answer=LedgerView),
    Route("clients", "GET", "/v1/clients", "All clients, by name.", answer=list[ClientView]),
    Route("revoke", "POST", "/v1/clients/{client}:revoke", "Takes a client's rights away, from now on.", "operator",
          answer=list[ClientView]),
    Route("tokens", "GET", "/v1/tokens", "Tokens for enrolment, without their secrets.", "operator",
          answer=list[TokenView]),
    Route("token", "POST", "/v1/tokens", "Makes a token with which clients enrol.", "operator", NewToken, Token,
          status=201),
    Route("events", "GET", "/v1/events", "The audit log as it grows: server-sent events, resumable by Last-Event-ID. "
          "Prefer: wait=0 ends it with the last row that there is.",
          kind="text/event-stream"),
    Route("openapi", "GET", "/v1/openapi.json", "This description.", answer=dict[str, Any]),
)  # fmt: skip
"""Every route of operators, and no other."""
