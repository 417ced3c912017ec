"""Who belongs to a federation: clients by their keys, and the tokens with which they enrol."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping

from shoal.errors import ConflictError, ServerError
from shoal.server.coordination import Known
from shoal.server.services import Services
from shoal.store.store import Row, Write
from shoal.wire.messages import Enroll, Enrolled


class Roster:
    """The clients that may talk to a server, in memory and in the store. A token is kept as its hash only."""

    def __init__(self, services: Services, *, federation: str) -> None:
        self._services, self._federation = services, federation
        self._keys: dict[str, bytes] = {}
        self._names: dict[str, str] = {}
        self._by_name: dict[str, bytes] = {}

    async def load(self) -> None:
        """Takes up those that the store knows."""
        for row in await self._services.thread(self._services.store.read, "clients"):
            self._names[row["id"]] = row["name"]
            self._by_name[row["name"]] = bytes(row["public_key"])
            if row["status"] == "active":
                self._keys[row["id"]] = bytes(row["public_key"])

    def public_key(self, client: str) -> bytes | None:
        """The key of a client that may talk to this server."""
        return self._keys.get(client)

    def keys(self) -> Mapping[str, bytes]:
        """The keys of all that ever enrolled by name, whether they may still talk to this server or not."""
        return self._by_name

    def known(self, client: str) -> Known | None:
        """The client with an id; None if nobody has it, or it was revoked."""
        return Known(client, self._names[client]) if client in self._keys else None

    async def enroll(self, message: Enroll) -> Enrolled:
        """A client with a token gets an id; the same client again gets the same one."""
        known = await self._enrolled(message.public_key)
        if known is not None:
            return known
        token = _hash(message.token)
        rows = await self._services.thread(self._services.store.read, "token", hash=token)
        if not rows or rows[0]["uses_left"] < 1 or rows[0]["expires"] <= self._services.wall():
            raise ServerError("this token is unknown, used up or expired: ask for a new one", code="token")
        if message.name in self._names.values():
            raise ServerError(
                f"a client called {message.name} is there already: choose another name", code="name-taken"
            )
        client = secrets.token_hex(8)
        try:
            await self._write(*self._adding(client, message, token=token, label=rows[0]["label"]))
        except ConflictError as error:
            known = await self._enrolled(message.public_key)  # the same request, twice at once
            if known is not None:
                return known
            raise ServerError(
                "this token or this name was taken just now: ask for a new token", code="token"
            ) from error
        self._enter(client, message.name, message.public_key)
        return Enrolled(client=client, name=message.name, federation=self._federation)

    def _adding(self, client: str, message: Enroll, *, token: str, label: str) -> list[Write]:
        now = self._services.wall()
        row = {"id": client, "name": message.name, "public_key": message.public_key, "token_label": label,
               "enrolled": now}  # fmt: skip
        return [
            Write("token_use", {"hash": token, "now": now}, wants=1),
            *self._services.audit("client", "enrolled", client, label),
            Write("client_add", row),
        ]

    async def _enrolled(self, key: bytes) -> Enrolled | None:
        """The client of a key, if it is there: also one whose answer was lost with the store's."""
        rows: list[Row] = await self._services.thread(self._services.store.read, "client_by_key", public_key=key)
        if not rows or rows[0]["status"] != "active":
            return None
        client, name = rows[0]["id"], rows[0]["name"]
        self._enter(client, name, key)
        return Enrolled(client=client, name=name, federation=self._federation)

    def _enter(self, client: str, name: str, key: bytes) -> None:
        self._keys[client], self._names[client], self._by_name[name] = key, name, key

    async def token(self, *, label: str, uses: int, lasts_s: float) -> str:
        """A new token with which `uses` clients may enrol."""
        token = f"shoal-{secrets.token_urlsafe(24)}"
        now = self._services.wall()
        row = {"hash": _hash(token), "label": label, "uses_left": uses, "expires": now + lasts_s, "created": now}
        await self._write(Write("token_add", row), *self._services.audit("operator", "token", label))
        return token

    async def revoke(self, client: str) -> Known:
        """Takes a client's rights away, by its id or its name; who it was."""
        for known, name in self._names.items():
            if client in (known, name):
                audit = self._services.audit("operator", "revoked", known)
                await self._write(Write("client_revoke", {"id": known}), *audit)
                self._keys.pop(known, None)
                return Known(known, name)
        raise ServerError(f"there is no client {client}", code="client-unknown")

    async def _write(self, *writes: Write) -> None:
        await asyncio.wrap_future(self._services.store.write(*writes))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
