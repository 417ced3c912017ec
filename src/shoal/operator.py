"""What an operator asks of a server: runs, clients, tokens, models and the audit log, over the operators' API."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

import msgspec
import urllib3
from urllib3.util import Timeout

from shoal.client.tls import CONNECT_S, READ_S, checked_url, why_unreachable
from shoal.errors import ServerError, SettingError
from shoal.server.address import Address
from shoal.server.routes import ROUTES, NewRun, NewToken, Token
from shoal.server.views import ClientView, LedgerView, RunView, TokenView
from shoal.whole_file import written
from shoal.wire.messages import Problem

if TYPE_CHECKING:
    from shoal.plan import Plan
    from shoal.rounds.rules import Rules

_ROUTES = {route.name: route for route in ROUTES}
_CHUNK = 1 << 20


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the audit log: who did what to which object. `time` is seconds since 1970."""

    seq: int = 0
    time: float
    actor: str
    action: str
    object: str
    outcome: str
    detail: str


class Operator:
    """A server as its operator sees it.

    `token` is what is in the server's `operator.token`, or in `viewer.token` for one who only looks. `trusted` is a
    file with the certificate of the server, or of its authority, in PEM; None trusts whom the system trusts. `host` is
    the name that the certificate is for, if it is not the URL's. Every method raises a ServerError, with what to do,
    for what the server refuses and where it cannot be reached.
    """

    def __init__(self, server: str, *, token: str, trusted: str | Path | None = None, host: str | None = None) -> None:
        self.server = checked_url(server)
        if not token.isascii() or not token.isprintable():
            raise SettingError("an operator's token is one line, as in the server's operator.token")
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        named: dict[str, Any] = {"assert_hostname": host, "server_hostname": host} if host else {}
        tls: dict[str, Any] = {"ssl_context": _context(trusted), **named} if self.server.startswith("https") else {}
        self._pool = urllib3.PoolManager(maxsize=2, **tls)

    @classmethod
    def at(cls, folder: str | Path, *, token_file: Path | None = None) -> Operator:
        """The server of a folder on this machine; SettingError if none has served from it."""
        folder = Path(folder)
        address, token = Address.of(folder), token_of(token_file or folder / "operator.token")
        return cls(address.url, token=token, trusted=address.certificate, host=address.host)

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def runs(self) -> list[RunView]:
        """All runs, the newest first, without their histories."""
        return self._asked("runs")

    def run(self, run: str) -> RunView:
        """A run by its id or its name, with its history."""
        return self._asked("run", run)

    def submit(self, plan: Plan, *, name: str, rules: Rules | None = None, seed: int | None = None) -> RunView:
        """Begins a run. UnsupportedError for a plan that only its study file defines: give that to `shoal serve`."""
        from shoal.wire.plans import plan_bytes  # which needs JAX, as nothing else here does

        told = None if rules is None else asdict(rules)
        return self._asked("submit", body=NewRun(plan=plan_bytes(plan).decode(), name=name, rules=told, seed=seed))

    def command(self, run: str, what: Literal["pause", "resume", "cancel"]) -> RunView:
        """The run, after it was paused, resumed or cancelled."""
        return self._asked(what, run)

    def ledger(self) -> LedgerView:
        """What the runs have released of clients under noise, and the budget of all of them together."""
        return self._asked("ledger")

    def clients(self) -> list[ClientView]:
        """All clients, by name."""
        return self._asked("clients")

    def revoke(self, client: str) -> list[ClientView]:
        """All clients, after one, by its id or its name, has lost its rights."""
        return self._asked("revoke", client)

    def tokens(self) -> list[TokenView]:
        """Tokens for enrolment, without their secrets."""
        return self._asked("tokens")

    def token(self, *, label: str = "", uses: int = 1, lasts_s: float = 7 * 86_400.0) -> Token:
        """A new token with which so many clients may enrol. The server keeps only its hash."""
        return self._asked("token", body=NewToken(label=label, uses=uses, lasts_s=lasts_s))

    def model(self, run: str, path: str | Path) -> Path:
        """A safetensors file with the run's model after its last closed round, whole or not there."""
        path = Path(path)
        with self._answer("model", run) as response, written(path) as file:
            digest = hashlib.sha256()
            for piece in response.stream(_CHUNK):
                digest.update(piece)
                file.write(piece)
            if response.headers.get("etag", "").strip('"') != digest.hexdigest():
                raise ServerError("the model did not arrive as it was sent: ask again", code="wrong-digest")
        return path

    def events(self, *, after: int = 0, follow: bool = False) -> Iterator[Happened]:
        """The audit log in order, from the row after a number: to its end, or on and on as it grows."""
        while True:
            headers = {"last-event-id": str(after), **({} if follow else {"prefer": "wait=0"})}
            with self._answer("events", headers=headers) as response:
                for event in _events(response):
                    after = event.seq
                    yield event
            if not follow:
                return

    def _asked(self, name: str, item: str = "", *, body: Any = None) -> Any:
        """What the server answers on a route of its table."""
        with self._answer(name, item, body=body) as response:
            return msgspec.json.decode(response.read(), type=_ROUTES[name].answer)

    @contextmanager
    def _answer(
        self, name: str, item: str = "", *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Generator[urllib3.BaseHTTPResponse]:
        """An answer that is yet to be read."""
        route = _ROUTES[name]
        path = "/".join(_filled(piece, item) for piece in route.path.split("/"))
        data = b"" if body is None else msgspec.json.encode(body)
        said = {**self._headers, **({"content-type": "application/json"} if data else {}), **(headers or {})}
        try:
            response = self._pool.request(
                route.method, self.server + path, body=data, headers=said, preload_content=False, redirect=False,
                retries=False, timeout=Timeout(connect=CONNECT_S, read=READ_S),
            )  # fmt: skip
            try:
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise self._refusal(response)
                yield response
            finally:
                response.close()
        except msgspec.MsgspecError:
            raise self._no_server() from None
        except (urllib3.exceptions.HTTPError, ssl.SSLError, ConnectionError, TimeoutError) as error:
            raise why_unreachable(error, self.server) from error

    def _refusal(self, response: urllib3.BaseHTTPResponse) -> ServerError:
        problem = msgspec.json.decode(response.read(), type=Problem)
        return ServerError(problem.message, code=problem.code, retry_after_s=problem.retry_after_s)

    def _no_server(self) -> ServerError:
        return ServerError(
            f"{urlsplit(self.server).netloc} answers, but not as this version's server: look at the URL and at the "
            "versions of both",
            code="not-shoal",
        )


def token_of(path: Path) -> str:
    """The token in a file; SettingError if it cannot be read."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"the operator's token {path} cannot be read ({type(error).__name__}): the server made it when it first "
            "started; name where it is now with --operator-token-file"
        ) from None


def _filled(piece: str, item: str) -> str:
    """A piece of a route's path, with what it names."""
    before, brace, rest = piece.partition("{")
    return before + quote(item, safe="") + rest.partition("}")[2] if brace else piece


def _context(trusted: str | Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=trusted)
    except (OSError, ValueError) as error:
        raise SettingError(f"{trusted} is no certificate that can be read: name a PEM file") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own certificate may be the one in the file
    return context


def _events(response: urllib3.BaseHTTPResponse) -> Iterator[Happened]:
    """The events of a stream, as they come."""
    seq, rest = 0, b""
    while piece := response.read1():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b": ")
            if name == b"id":
                seq = int(value)
            elif name == b"data":
                yield msgspec.structs.replace(msgspec.json.decode(value, type=Happened), seq=seq)
