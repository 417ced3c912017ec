"""Sessions: who speaks, by a signature once and by a MAC on each request after it.

Sessions are in memory only and belong to one start of the server. Nothing is accepted twice: a signed hello carries a
nonce, a request a counter, and both are remembered for as long as they could be repeated.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from shoal.errors import ServerError
from shoal.server.coordination import Known
from shoal.wire.messages import Hello, Session
from shoal.wire.signing import check_mac, hello_bytes, to_sign, verify

WINDOW = 1024
"""How far behind the highest counter a request may arrive: requests run beside each other and overtake."""

REMEMBERED = 1000
"""How many nonces, and how many earlier incarnations, are remembered of a client."""


@dataclass(slots=True)
class Open:
    """A session, and what was seen in it."""

    id: str
    client: Known
    incarnation: str
    mac_key: bytes = field(repr=False)
    expires: float
    told: set[str] = field(default_factory=set[str])
    """Runs that the client was told of."""
    highest: int = -1
    seen: int = 0
    """Bit i is set if the counter `highest - i` was used."""

    def use(self, counter: int) -> bool:
        """Whether a counter was not used before and is not too old to say; from now on it is used."""
        ahead = counter - self.highest
        if ahead > 0:
            self.seen = ((self.seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self.highest = counter
            return True
        if -ahead >= WINDOW or self.seen >> -ahead & 1:
            return False
        self.seen |= 1 << -ahead
        return True


@dataclass(slots=True)
class _Identity:
    """What is remembered of a client beyond its sessions."""

    incarnation: str
    session: str
    nonces: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    earlier: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


class Sessions:
    """The sessions of one start of the server: at most `most`, those longest unused are dropped first.

    A session ends `lasts_s` after it was last used. A hello with a new incarnation takes the identity: the sessions
    of the incarnation before are superseded, for good. `gone` is told of a client whose session ended, or was
    superseded, and in that case `superseded`, too.
    """

    def __init__(
        self,
        federation: str,
        boot: str,
        *,
        public_key: Callable[[str], bytes | None],
        known: Callable[[str], Known | None],
        gone: Callable[[Known], None] = lambda client: None,
        superseded: Callable[[Known], None] = lambda client: None,
        most: int = 100_000,
        lasts_s: float = 24 * 3600.0,
        clock: Callable[[], float] = time.monotonic,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._federation, self._boot = federation, boot
        self._public_key, self._known, self._gone, self._told = public_key, known, gone, superseded
        self._most, self._lasts_s, self._clock, self._entropy = most, lasts_s, clock, entropy
        self._open: OrderedDict[str, Open] = OrderedDict()  # the longest unused first
        self._identities: dict[str, _Identity] = {}
        self._superseded: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def has(self, session: str) -> bool:
        """Whether a session with this id is open. Says nothing about who asks."""
        return session in self._open

    def hello(self, message: Hello) -> Session:
        """A new session for the client that signed this; ServerError if it is not that client, or not this time."""
        self.expire()
        if message.boot != self._boot:
            raise ServerError(
                "the server was started since: ask /v1/server for its boot, and sign a hello with that",
                code="session-unknown",
            )
        client, key = self._known(message.client), self._public_key(message.client)
        signed = hello_bytes(self._federation, message.boot, message.client, message.incarnation, message.nonce)
        if client is None or key is None or not verify(key, message.signature, signed):
            raise ServerError(
                "no client with this id and key is enrolled here: enrol with a token, or ask whether it was revoked",
                code="client-unknown",
            )
        return self._opened(client, message)

    def _opened(self, client: Known, message: Hello) -> Session:
        identity = self._identities.get(client.id)
        if identity is None:
            identity = self._identities[client.id] = _Identity(message.incarnation, "")
        elif message.nonce in identity.nonces:
            raise ServerError("this hello was used before: sign one with a new nonce", code="replayed")
        elif message.incarnation in identity.earlier:
            raise superseded_error()
        elif message.incarnation != identity.incarnation:
            identity.earlier.append(identity.incarnation)
            identity.incarnation = message.incarnation
            self._supersede(identity.session)
        else:
            self._open.pop(identity.session, None)
        session = Open(
            self._entropy(16).hex(), client, message.incarnation, self._entropy(32), self._clock() + self._lasts_s
        )
        identity.nonces.append(message.nonce)
        identity.session = session.id
        self._open[session.id] = session
        self._drop_old()
        return Session(session=session.id, mac_key=session.mac_key, lasts_s=self._lasts_s)

    def check(self, method: str, path: str, *, session: str, counter: str, digest: str, mac: str) -> Open:
        """The session that a request is in; ServerError if its MAC is wrong, or its counter was used."""
        open_ = self._open.get(session)
        if open_ is None:
            raise superseded_error() if session in self._superseded else _unknown()
        if not (counter.isascii() and counter.isdecimal() and len(counter) <= 19):
            raise ServerError("the request's counter is a whole number from 0, in digits", code="malformed")
        number = int(counter)
        if not check_mac(open_.mac_key, to_sign(method, path, number, digest), given=mac):
            raise ServerError("the request's MAC does not fit its session, path, counter and digest", code="bad-mac")
        if self._known(open_.client.id) is None:
            self._end(open_)
            raise ServerError("this client was revoked", code="client-unknown")
        if not open_.use(number):
            raise ServerError("a request with this counter came before: each has a higher one", code="replayed")
        now = self._clock()
        if now > open_.expires:
            self._end(open_)
            raise _unknown()
        open_.expires = now + self._lasts_s
        self._open.move_to_end(session)
        return open_

    def expire(self) -> None:
        """Ends the sessions that were not used for too long."""
        now = self._clock()
        while self._open and (oldest := next(iter(self._open.values()))).expires < now:
            self._end(oldest)

    def _supersede(self, session: str) -> None:
        older = self._open.pop(session, None)
        if older is not None:
            self._gone(older.client)
            self._told(older.client)
            self._superseded[session] = None
            while len(self._superseded) > self._most:
                self._superseded.popitem(last=False)

    def _drop_old(self) -> None:
        while len(self._open) > self._most:
            self._end(next(iter(self._open.values())))

    def _end(self, session: Open) -> None:
        del self._open[session.id]
        self._gone(session.client)


def superseded_error() -> ServerError:
    """What the agent hears whose identity another agent has taken."""
    return ServerError(
        "another agent with this client's key said hello after this one: only the newest is listened to; "
        "stop one of them, or enrol it with a token of its own",
        code="superseded",
    )


def _unknown() -> ServerError:
    return ServerError("there is no such session (any more): say hello again", code="session-unknown")
