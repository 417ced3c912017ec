"""The client's side of the protocol on raw sockets: little enough of it that the server is what is measured."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import numpy as np

from shoal.aggregation import Payload
from shoal.wire.blobs import blob_id, manifest_of, part_span
from shoal.wire.codec import decode, encode
from shoal.wire.messages import (
    COUNTER_HEADER,
    DIGEST_HEADER,
    INLINE_BYTES,
    MAC_HEADER,
    SESSION_HEADER,
    VERSION_HEADER,
    CheckIn,
    Hello,
    Message,
    Missing,
    Orders,
    Result,
    ServerInfo,
    Session,
    Task,
    Upload,
    Verdict,
)
from shoal.wire.payloads import pack_payload
from shoal.wire.signing import digest_of, hello_bytes, mac, sign, to_sign

M = TypeVar("M", bound=Message)
NAME = "bench"
_KIND = b"content-type: application/msgpack\r\naccept: application/msgpack\r\n"


def client_id(number: int) -> str:
    """A client's id, which is its name too."""
    return f"client-{number:05d}"


def key_of(client: str) -> bytes:
    """The private key that a client of a benchmark has."""
    return hashlib.sha256(b"a key for benchmarks only: " + client.encode()).digest()


class Road:
    """One connection over TLS that is kept open."""

    def __init__(self, url: str, authority: str) -> None:
        self._at = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._context = ssl.create_default_context(cafile=authority)
        self._socket = self._connected()

    def _connected(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self._at[1]), timeout=120)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(plain, server_hostname=self._at[0])

    def anew(self) -> None:
        """Leaves this connection and opens another."""
        self._socket.close()
        self._socket = self._connected()

    def send(self, request: bytes) -> None:
        """Sends a request; `answer` is to be read before the next one."""
        self._socket.sendall(request)

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        data = self._socket.recv(1 << 18)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._received()
        head, parts = data[:end].lower(), [data[end + 4 :]]
        at = head.find(b"content-length:")
        left = (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0) - len(parts[0])
        while left > 0:
            parts.append(self._received())
            left -= len(parts[-1])
        return int(head[9:12]), b"".join(parts)

    def went_well(self) -> bytes:
        """The body of the answer; RuntimeError unless it is what was asked for."""
        status, body = self.answer()
        if status >= 300:
            raise RuntimeError(f"{status} {body[:300]!r}")
        return body

    def ask(self, request: bytes) -> bytes:
        """The body of the answer to a request; RuntimeError unless it went well."""
        self.send(request)
        return self.went_well()

    def _received(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise RuntimeError("the server closed the connection")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()


@dataclass
class Site:
    """One client in a session; its requests as bytes."""

    client: str
    session: Session
    counter: int = 0

    @staticmethod
    def hello(road: Road, number: int) -> Site:
        """A client that has just said hello."""
        client, nonce = client_id(number), os.urandom(16)
        boot = boot_of(road)
        said = hello_bytes(NAME, boot, client, client, nonce)
        message = Hello(client=client, boot=boot, incarnation=client, nonce=nonce, signature=sign(key_of(client), said))
        return Site(client, decode(road.ask(plain("POST", "/v1/session", encode(message))), Session))

    def request(self, method: str, path: str, body: bytes = b"", *, digest: str = "") -> bytes:
        """A request in the session."""
        self.counter += 1
        digest = digest or digest_of(body)
        signed = mac(self.session.mac_key, to_sign(method, path, self.counter, digest))
        bound = {SESSION_HEADER: self.session.session, COUNTER_HEADER: self.counter, DIGEST_HEADER: digest,
                 MAC_HEADER: signed}  # fmt: skip
        return plain(method, path, body, "".join(f"{name}: {value}\r\n" for name, value in bound.items()))

    def check_in(self, road: Road, *, wait_s: float = 0.0) -> Orders:
        """What this client is to do."""
        return decode(road.ask(self.request("POST", "/v1/checkin", encode(CheckIn(wait_s=wait_s)))), Orders)

    def task(self, road: Road, *, wait_s: float = 25.0) -> Task:
        """This client's next task."""
        while not (orders := self.check_in(road, wait_s=wait_s)).tasks:
            pass
        return orders.tasks[0]

    def upload(self, road: Road, task: Task, payload: bytes) -> Verdict:
        """The verdict on a result, which is sent as it has to be: offered, in parts, reported; or within the report."""
        manifest = manifest_of(payload)
        path = f"/v1/tasks/{task.task}"
        result = Result(manifest=manifest, inline=payload if len(payload) <= INLINE_BYTES else None)
        if result.inline is None:
            offered = road.ask(self.request("POST", f"{path}/upload", encode(Upload(manifest=manifest))))
            for part in decode(offered, Missing).parts:
                begin, length = part_span(manifest, part)
                digest = manifest.parts[part].hex()
                piece = payload[begin : begin + length]
                road.ask(self.request("PUT", f"{path}/parts/{part}", piece, digest=digest))
        return decode(road.ask(self.request("POST", f"{path}/report", encode(result))), Verdict)

    def download(self, road: Road, task: Task) -> bytes:
        """The model that a task begins with."""
        if task.inline is not None:
            return task.inline
        return road.ask(self.request("GET", f"/v1/blobs/{blob_id(task.model)}"))


def gathered(road: Road, numbers: Sequence[int]) -> list[tuple[Site, Task]]:
    """Clients that were told of the run and have their tasks of one round, in the order of their positions in it."""
    sites = [Site.hello(road, number) for number in numbers]
    for site in sites:
        site.check_in(road)  # the answer tells of the run, and only the next time a client would take a task
    return in_order(road, sites)


def in_order(road: Road, sites: Sequence[Site]) -> list[tuple[Site, Task]]:
    """The sites with their tasks, once all would take one, in the order of the tasks' positions."""
    for site in sites:
        site.check_in(road)
    tasks = [(site, site.task(road)) for site in sites]
    return sorted(tasks, key=lambda each: int(each[1].task.rpartition("-")[2]))


def payloads(numbers: int) -> Any:
    """A function that gives the contribution of a client, by its number: no two are alike."""
    value = np.random.default_rng(0).normal(size=numbers).astype(np.float32)

    def of(client: int) -> bytes:
        value[0] = client
        return pack_payload(Payload(value, np.float32(1), {}, np.int32(1)))

    return of


def boot_of(road: Road) -> str:
    """The server's boot, which a hello is signed for."""
    return decode(road.ask(plain("GET", "/v1/server")), ServerInfo).boot


def plain(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """A request as bytes."""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{VERSION_HEADER}: 1\r\n{headers}"
    length = f"content-length: {len(body)}\r\n\r\n" if body or method != "GET" else "\r\n"
    return b"".join([head.encode(), _KIND, length.encode(), body])
