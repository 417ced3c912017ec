"""The operators' API: JSON for the command line, for scripts and for people, under a bearer token."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import msgspec

from shoal.errors import ServerError, SettingError
from shoal.rounds.rules import Rules
from shoal.server.audit import audit_writes
from shoal.server.coordination import Coordination
from shoal.server.exchange import JSON, Exchange
from shoal.server.openapi import description
from shoal.server.routes import ROUTES, NewRun, NewToken, Route, Token
from shoal.server.sending import send_file
from shoal.server.views import TokenView
from shoal.whole_file import write_whole
from shoal.wire.messages import MESSAGE_BYTES

Role = Literal["operator", "viewer"]

_FILE = "operators.json"
_STREAMS = 32
_LOOK_S, _STREAM_PAGE = 0.25, 200
_STREAM_FOR_S = 3600.0
_SAFETENSORS = b"application/octet-stream"


class Operators:
    """Who may command this server: two bearer tokens, of which the server keeps only the hashes.

    The first start makes them, in `operator.token` and `viewer.token`, which only this user can read. They can be
    moved elsewhere. Without `operators.json` the next start makes new ones, and the old ones are worth nothing.
    """

    def __init__(self, hashes: Mapping[Role, str]) -> None:
        self._hashes = dict(hashes)

    @classmethod
    def of(cls, folder: Path) -> Operators:
        """Those of a server's folder. OSError if it can neither be read nor written."""
        try:
            held = json.loads((folder / _FILE).read_bytes())
            return cls({"operator": str(held["operator"]), "viewer": str(held["viewer"])})
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError):
            raise SettingError(
                f"{folder / _FILE} is damaged: remove it, and the next start makes new tokens for operators"
            ) from None
        folder.mkdir(parents=True, exist_ok=True)
        hashes: dict[Role, str] = {}
        roles: tuple[Role, ...] = ("operator", "viewer")
        for role in roles:
            token = f"shoal-{role}-{secrets.token_urlsafe(32)}"
            hashes[role] = _hash(token)
            write_whole(folder / f"{role}.token", token.encode() + b"\n", mode=0o600)
        write_whole(folder / _FILE, json.dumps(hashes).encode(), mode=0o600)
        return cls(hashes)

    def role(self, authorization: str) -> Role:
        """What the header `Authorization` allows; ServerError if it is no token of this server's."""
        scheme, _, token = authorization.partition(" ")
        given = _hash(token.strip())
        if scheme.lower() == "bearer":
            for role, hash_ in self._hashes.items():
                if hmac.compare_digest(given, hash_):
                    return role
        raise ServerError(
            "operators say who they are: Authorization: Bearer, and what is in the server's operator.token",
            code="operator-unknown",
        )


@dataclass(frozen=True)
class _Asked:
    """A request of an operator whose role allows it."""

    exchange: Exchange
    route: Route
    role: Role
    item: str
    """What the path names, such as a run."""


class Operations:
    """Answers the routes of the operators' API."""

    def __init__(self, coordinator: Coordination, operators: Operators, *, draining: Callable[[], bool]) -> None:
        self._coordinator, self._operators, self._draining = coordinator, operators, draining
        self._streams = 0
        self._does: dict[str, Callable[[_Asked], Awaitable[Any]]] = {
            "runs": self._runs, "submit": self._submit, "run": self._run, "pause": self._command,
            "resume": self._command, "cancel": self._command, "clients": self._clients, "revoke": self._revoke,
            "tokens": self._tokens, "token": self._token, "model": self._model, "events": self._events,
            "ledger": self._ledger, "openapi": self._openapi,
        }  # fmt: skip

    @property
    def names(self) -> frozenset[str]:
        """The routes that are answered."""
        return frozenset(self._does)

    async def answer(self, exchange: Exchange) -> None:
        """Answers a request; ServerError if there is no such route, or the operator may not."""
        route, item = _route(exchange.method, exchange.path)
        role = self._operators.role(exchange.header("authorization"))
        if route.role == "operator" and role != "operator":
            raise ServerError("a viewer looks and changes nothing: this takes the operator's token", code="role")
        answer = await self._does[route.name](_Asked(exchange, route, role, item))
        if answer is not None:
            await exchange.whole(route.status, [(b"content-type", JSON)], msgspec.json.encode(answer))

    async def _body(self, asked: _Asked) -> Any:
        data = await asked.exchange.unsigned_body(MESSAGE_BYTES)
        try:
            return msgspec.json.decode(data, type=asked.route.body)
        except msgspec.MsgspecError as error:
            raise ServerError(f"this is not what {asked.route.name} takes: {error}", code="malformed") from None

    async def _runs(self, asked: _Asked) -> Any:
        return self._coordinator.runs()

    async def _run(self, asked: _Asked) -> Any:
        return self._coordinator.run(asked.item)

    async def _submit(self, asked: _Asked) -> Any:
        new: NewRun = await self._body(asked)
        run = await self._coordinator.submit(new.plan.encode(), name=new.name, rules=rules_of(new.rules), seed=new.seed)
        return self._coordinator.run(run)

    async def _command(self, asked: _Asked) -> Any:
        what: Any = asked.route.name
        return await self._coordinator.command(asked.item, what, asked.role)

    async def _clients(self, asked: _Asked) -> Any:
        return self._coordinator.clients()

    async def _revoke(self, asked: _Asked) -> Any:
        await self._coordinator.revoke(asked.item)
        return self._coordinator.clients()

    async def _tokens(self, asked: _Asked) -> Any:
        rows = await asyncio.to_thread(self._coordinator.store.read, "tokens")
        names = [field.name for field in msgspec.structs.fields(TokenView)]
        return [TokenView(**{name: row[name] for name in names}) for row in rows]

    async def _token(self, asked: _Asked) -> Any:
        new: NewToken = await self._body(asked)
        token = await self._coordinator.token(label=new.label, uses=new.uses, lasts_s=new.lasts_s)
        return Token(token=token, expires=time.time() + new.lasts_s)

    async def _ledger(self, asked: _Asked) -> Any:
        return await asyncio.to_thread(self._coordinator.ledger)

    async def _model(self, asked: _Asked) -> None:
        path = await self._coordinator.model(asked.item)
        written = audit_writes(asked.role, "model", asked.item, "taken out", time=time.time())
        await asyncio.wrap_future(self._coordinator.store.write(*written))
        with await asyncio.to_thread(path.open, "rb") as file:
            tag = await asyncio.to_thread(lambda: hashlib.file_digest(file, "sha256").hexdigest())
            name = f'attachment; filename="{asked.item}.safetensors"'.encode("ascii", "replace")
            await send_file(asked.exchange, file, tag=tag, kind=_SAFETENSORS, headers=((b"content-disposition", name),))

    async def _events(self, asked: _Asked) -> None:
        """The audit log as it grows, as server-sent events whose ids are the rows' numbers.

        With `Prefer: wait=0` it ends with the last row that there is.
        """
        last = asked.exchange.header("last-event-id")
        if last and not (last.isascii() and last.isdecimal() and len(last) < 16):
            raise ServerError("Last-Event-ID is the number of a row of the audit log", code="malformed")
        if self._streams >= _STREAMS:
            raise ServerError("as many as there may be listen to events already", code="busy", retry_after_s=30.0)
        self._streams += 1
        try:
            await self._stream(asked.exchange, int(last or 0))
        finally:
            self._streams -= 1

    async def _stream(self, exchange: Exchange, after: int) -> None:
        await exchange.stream([(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")])
        follow = "wait=0" not in exchange.header("prefer")
        until, quiet = time.monotonic() + _STREAM_FOR_S, 0
        left = asyncio.ensure_future(exchange.until_left())
        while not (self._draining() or left.done() or time.monotonic() > until):
            rows = await asyncio.to_thread(self._coordinator.store.read, "audit", after=after, limit=_STREAM_PAGE)
            if rows:
                after = rows[-1]["seq"]
                await exchange.more(b"".join(_event(row) for row in rows))
            elif not follow:
                break
            else:
                quiet += 1
                if quiet % 60 == 0:
                    await exchange.more(b": still here\n\n")
                await asyncio.wait({left}, timeout=_LOOK_S)
        left.cancel()
        await exchange.more(b"", last=True)

    async def _openapi(self, asked: _Asked) -> Any:
        return description(self._coordinator.federation)


def rules_of(given: Mapping[str, Any] | None) -> Rules | None:
    """Rules from their names and values; None for none given. SettingError for a name that is no rule."""
    if given is None:
        return None
    names = [field.name for field in fields(Rules)]
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise SettingError(f"rules are {', '.join(names)}: there is none called {unknown[0][:50]}")
    return Rules(**given)


def _route(method: str, path: str) -> tuple[Route, str]:
    """The route of a request and what its path names."""
    there = False
    for route, pattern in _PATTERNS:
        match = pattern.fullmatch(path)
        if match and route.method == method:
            return route, match[1] if pattern.groups else ""
        there = there or match is not None
    if there:
        raise ServerError("this path is not asked with this method", code="method")
    raise ServerError("there is nothing here under this method and path", code="not-found")


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile("([^/]+)".join(re.escape(piece) for piece in re.split(r"\{[a-z]+\}", path)))


_PATTERNS = [(route, _pattern(route.path)) for route in ROUTES]


def _event(row: Mapping[str, Any]) -> bytes:
    said = {name: row[name] for name in ("time", "actor", "action", "object", "outcome", "detail")}
    return f"id: {row['seq']}\nevent: {row['action']}\ndata: {json.dumps(said)}\n\n".encode()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
