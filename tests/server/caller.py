"""A client made of urllib3 and the wire's own functions: it can be as honest or as wrong as a test wants."""

from __future__ import annotations

import os
import secrets
from typing import Any, TypeVar

import urllib3

from shoal.wire.codec import decode, encode
from shoal.wire.messages import (
    COUNTER_HEADER,
    DIGEST_HEADER,
    MAC_HEADER,
    SESSION_HEADER,
    VERSION_HEADER,
    Enroll,
    Enrolled,
    Hello,
    Message,
    Problem,
    ServerInfo,
    Session,
)
from shoal.wire.signing import digest_of, enroll_bytes, hello_bytes, mac, new_key, public_key_of, sign, to_sign
from tests.server.here import TOKEN

M = TypeVar("M", bound=Message)
MSGPACK = "application/msgpack"


class Caller:
    """One agent of one client."""

    def __init__(
        self, url: str, authority: str | None, *, key: bytes | None = None, federation: str = "hearts"
    ) -> None:
        self.url, self.federation = url, federation
        self.http = urllib3.PoolManager(ca_certs=authority, retries=False, timeout=20.0, maxsize=4)
        self.key = key or new_key()
        self.incarnation = secrets.token_hex(8)
        self.client = ""
        self.session: Session | None = None
        self.counter = 0

    def raw(self, method: str, path: str, body: Any = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """A request with these headers and no others."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, self.url + path, body=body, headers=named)

    def plain(self, method: str, path: str, message: Message | None = None, **headers: str) -> urllib3.BaseHTTPResponse:
        """A message without a session."""
        said = {"content_type": MSGPACK, "accept": MSGPACK, "shoal_version": "1"} | headers
        return self.raw(method, path, None if message is None else encode(message), **said)

    def info(self) -> ServerInfo:
        return decode(self.plain("GET", "/v1/server").data, ServerInfo)

    def enroll(self, name: str = "site", *, token: str = TOKEN) -> urllib3.BaseHTTPResponse:
        public = public_key_of(self.key)
        signature = sign(self.key, enroll_bytes(self.federation, token, name, public))
        answer = self.plain(
            "POST", "/v1/enroll", Enroll(token=token, name=name, public_key=public, signature=signature)
        )
        if answer.status == 200:
            self.client = decode(answer.data, Enrolled).client
        return answer

    def hello(self, **other: Any) -> urllib3.BaseHTTPResponse:
        said = {"boot": "boot0001", "client": self.client, "incarnation": self.incarnation, "nonce": os.urandom(16)}
        said |= other
        key = said.pop("key", self.key)
        text = hello_bytes(self.federation, said["boot"], said["client"], said["incarnation"], said["nonce"])
        signature = sign(key, text)
        answer = self.plain("POST", "/v1/session", Hello(**said, signature=signature))
        if answer.status == 200:
            self.session, self.counter = decode(answer.data, Session), 0
        return answer

    def ready(self, name: str = "site") -> Caller:
        """Enrolled, with a session."""
        assert self.enroll(name).status == 200
        assert self.hello().status == 200
        return self

    def headers(self, method: str, path: str, *, digest: str, counter: int | None = None) -> dict[str, str]:
        """The headers of a request in the session."""
        assert self.session is not None
        if counter is None:
            self.counter += 1
            counter = self.counter
        return {
            "content-type": MSGPACK, "accept": MSGPACK, VERSION_HEADER: "1", SESSION_HEADER: self.session.session,
            COUNTER_HEADER: str(counter), DIGEST_HEADER: digest,
            MAC_HEADER: mac(self.session.mac_key, to_sign(method, path, counter, digest)),
        }  # fmt: skip

    def ask(self, method: str, path: str, body: Message | bytes = b"", **other: str) -> urllib3.BaseHTTPResponse:
        """A request in the session; `other` takes the place of its headers."""
        data = body if isinstance(body, bytes) else encode(body)
        headers = self.headers(method, path, digest=digest_of(data))
        headers |= {name.replace("_", "-"): value for name, value in other.items()}
        return self.http.request(method, self.url + path, body=data or None, headers=headers)


def told(answer: urllib3.BaseHTTPResponse, kind: type[M]) -> M:
    """The message in an answer that went well."""
    assert answer.status == 200, problem(answer)
    return decode(answer.data, kind)


def problem(answer: urllib3.BaseHTTPResponse) -> str:
    """The status and the code of an answer that did not."""
    return f"{answer.status} {decode(answer.data, Problem).code}"
