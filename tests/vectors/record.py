"""Sessions of a secure sum as plain data: what was drawn, what was sent, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shoal.errors import SecureSumError

from ..secure.session import SENT, STAGES, TOLD, Clients, Line, Played, play, untouched

Message = Callable[[dict[tuple[str, str], bytes]], bytes]
"""A message made of those that were sent before."""


@dataclass(frozen=True)
class Extra:
    """A message that the server is given besides the others: right after another one, or at the start of a stage."""

    after: tuple[str, str]
    client: str
    message: Message


@dataclass(frozen=True)
class Case:
    """A session, and in what it is not as it should be."""

    name: str
    group: Clients
    dropped: Mapping[str, str] = field(default_factory=dict)
    line: Line = untouched
    extra: Extra | None = None


@dataclass
class Recorder:
    """Notes all that passes on a line, and sends what is sent besides."""

    case: Case
    played: Played | None = None
    sent: dict[tuple[str, str], bytes] = field(default_factory=dict)
    changed: dict[tuple[str, str], bytes] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    besides: list[list[str]] = field(default_factory=list)
    due: bool = False

    def opens(self, stage: str, played: Played) -> None:
        self.played = played
        self._besides(stage, "")

    def line(self, what: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
        self._late()
        came, body = self.case.line(what, client, message, body)
        if came != message:
            self.changed[what, client] = came
        self.sent[what, client] = came
        if what == "masked":
            self.bodies[client] = body
        self.due = self.case.extra is not None and self.case.extra.after == (what, client)
        return came, body

    def _late(self) -> None:
        if self.due:
            self.due = False
            self._send()

    def _besides(self, stage: str, client: str) -> None:
        self._late()
        if self.case.extra is not None and self.case.extra.after == (stage, client):
            self._send()

    def _send(self) -> None:
        extra, server = self.case.extra, self.played and self.played.server
        assert extra is not None and server is not None
        message = extra.message(self.sent)
        try:
            server.receive(extra.client, message)
        except SecureSumError as error:
            self.besides.append([server.stage, extra.client, message.hex(), str(error), str(error.culprit)])
        else:
            self.besides.append([server.stage, extra.client, message.hex(), "", ""])


def recorded(case: Case) -> tuple[Recorder, Played]:
    """The session played."""
    recorder = Recorder(case)
    played = play(case.group, dropped=case.dropped, line=recorder.line, opens=recorder.opens)
    return recorder, played


def outcome(played: Played) -> dict[str, Any]:
    """Who refused what with which sentence, and the sum."""
    errors = [
        {"who": "server" if what in SENT.values() else client, "message": what, "client": client, "error": str(error),
         "culprit": error.culprit}
        for what, client, error in played.refused
    ]  # fmt: skip
    if played.error is not None:
        errors.append({"who": "server", "error": str(played.error), "culprit": played.error.culprit})
    found = None
    if played.sum is not None:
        body = played.sum.value.tobytes() + played.sum.slots.tobytes()
        found = {"clients": played.sum.clients, "culprits": played.sum.culprits, "bytes": body.hex()}
    return {"errors": errors, "sum": found}


def whole(case: Case) -> dict[str, Any]:
    """Everything about a session in which everybody keeps to the protocol."""
    recorder, played = recorded(case)
    messages = [
        {"stage": stage, "message": what, "client": client, "bytes": recorder.sent[what, client].hex()}
        for stage in STAGES
        for what in (SENT[stage], TOLD.get(stage, ""))
        for client in case.group.names
        if (what, client) in recorder.sent
    ]
    return {
        **_setting(case),
        "messages": messages,
        "bodies": {name: body.hex() for name, body in sorted(recorder.bodies.items())},
        **outcome(played),
    }


def failed(case: Case) -> dict[str, Any]:
    """What is not as it should be in a session, and what comes of it. All that is not told follows from the rest."""
    recorder, played = recorded(case)
    changed = [
        {"message": what, "client": client, "bytes": message.hex()}
        for (what, client), message in recorder.changed.items()
    ]
    words = ("stage", "client", "bytes", "error", "culprit")
    besides = [dict(zip(words, one, strict=True)) for one in recorder.besides]
    return {**_setting(case), "changed": changed, "besides": besides, **outcome(played)}


def _setting(case: Case) -> dict[str, Any]:
    group, terms = case.group, case.group.terms
    named = {field: getattr(terms, field) for field in terms.__struct_fields__}
    return {
        "name": case.name,
        "terms": {name: one.hex() if isinstance(one, bytes) else one for name, one in named.items()},
        "digest": terms.digest.hex(),
        "shape": group.shape and [group.shape.neighbours, group.shape.threshold],
        "demand": {"clients": group.demand.clients, "threshold": group.demand.threshold},
        "clients": group.names,
        "gone": dict(case.dropped),
    }


def people(groups: list[Clients]) -> dict[str, dict[str, str]]:
    """What does not depend on the session: each client's private identity."""
    names = sorted({name for group in groups for name in group.names})
    return {name: groups[0].identity(name).hex() for name in names}


def draws(group: Clients) -> dict[str, dict[str, str]]:
    """What each client draws, and what it contributes, as the bytes of a body without masks."""
    return {
        name: {
            "entropy": group.entropy(name).hex(),
            "contribution": (group.value(name).tobytes() + group.slots(name).tobytes()).hex(),
        }
        for name in group.names
    }
