"""Connections to a server: TLS always, a proxy if the environment names one, and certificate errors as sentences."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
import ssl
import urllib.request
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import make_headers

from shoal.errors import ServerError, SettingError

CONNECT_S = 10.0
READ_S = 60.0


def checked_url(server: str) -> str:
    """The URL of a server without a slash at its end; SettingError if it is none, or would go over the wire as text.

    >>> checked_url("https://fl.example.org/")
    'https://fl.example.org'
    """
    parts = urlsplit(server.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingError("a server is named by its URL, such as https://shoal.example.org:8443")
    if parts.username or parts.password:
        raise SettingError("the URL of a server holds no user and no password: a client proves itself by its key")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise SettingError(f"a server is reached by https; only one on this machine by http, and not {parts.hostname}")
    return server.strip().rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Pool:
    """Connections to a server whose certificate comes from `authority` (PEM), or else from whom the system trusts.

    With another `context` it is that one who says what is trusted.
    """

    def __init__(self, server: str, *, authority: str | None, context: ssl.SSLContext | None = None) -> None:
        self._live: WeakSet[HTTPConnection] = WeakSet()
        self.manager = self._made(server, context or _context(authority))
        self.manager.pool_classes_by_scheme = _tracked(self._live)

    def cut(self) -> None:
        """Ends every connection at once, those that a thread waits on, too."""
        for connection in list(self._live):
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):  # it is closed already
                    sock.shutdown(socket.SHUT_RDWR)

    def clear(self) -> None:
        """Closes connections that nobody uses."""
        self.manager.clear()

    def _made(self, server: str, context: ssl.SSLContext) -> urllib3.PoolManager:
        parts = urlsplit(server)
        host, proxy = parts.hostname or "", urllib.request.getproxies().get(parts.scheme)
        if proxy is None or is_loopback(host) or urllib.request.proxy_bypass(host):
            return urllib3.PoolManager(ssl_context=context, maxsize=2)
        named = urlsplit(proxy)
        user = make_headers(proxy_basic_auth=f"{named.username}:{named.password or ''}") if named.username else None
        address = f"{named.scheme or 'http'}://{named.hostname}:{named.port or 3128}"
        return urllib3.ProxyManager(address, proxy_headers=user, ssl_context=context, maxsize=2)


def _tracked(live: WeakSet[HTTPConnection]) -> dict[str, type[HTTPConnectionPool]]:
    """Classes of pools whose connections are in `live` once they are open."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            live.add(self)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            live.add(self)

    class Plains(HTTPConnectionPool):
        ConnectionCls: Any = Plain

    class Secures(HTTPSConnectionPool):
        ConnectionCls: Any = Secure

    return {"http": Plains, "https": Secures}


def _context(authority: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=authority)
    except (ssl.SSLError, ValueError) as error:
        raise SettingError("the authority is not a certificate in PEM: give the file that the server made") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def why_unreachable(error: Exception, server: str) -> ServerError:
    """A sentence for what went wrong between here and a server, with what to do about it."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ServerError(_why_not_trusted(cause, server), code="certificate")
    host = urlsplit(server).netloc
    for cause in _causes(error):
        match cause:
            case urllib3.exceptions.ProxyError():
                return ServerError(f"the proxy that the environment names does not lead to {host}", code="proxy")
            case ssl.SSLError():
                what = re.sub(r"\s*\(_ssl.*\)$", "", str(cause))
                return ServerError(f"{host} does not speak TLS as it should ({what}): is it the right port?")
            case socket.gaierror():
                return ServerError(f"there is no host {urlsplit(server).hostname}: check the URL, or the network")
            case ConnectionRefusedError():
                return ServerError(f"nothing answers at {host}: the server is down, or the port is another")
            case _:
                continue
    return ServerError(f"{host} cannot be reached ({type(error).__name__}): the network or the server is down")


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and those behind it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        inner = getattr(error, "original_error", None) or getattr(error, "reason", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__
    return found


def _why_not_trusted(error: ssl.SSLCertVerificationError, server: str) -> str:
    host = urlsplit(server).hostname
    match error.verify_code:
        case 10:
            return f"the certificate of {host} has expired: its operator must renew it"
        case 9:
            return f"the certificate of {host} is not valid yet: check this machine's clock, then the server's"
        case 62 | 64:
            return f"the certificate that answers is not for {host}: use the name that it was made for"
        case _:
            return (
                f"nobody whom this machine trusts vouches for {host}, whose certificate has the SHA-256 fingerprint "
                f"{fingerprint(server)}. Get its authority's certificate from the operator, compare the fingerprint "
                "with theirs by another way, and give the file when joining"
            )


def fingerprint(server: str) -> str:
    """SHA-256 of the certificate that a server shows, in hexadecimal; "unknown" if it shows none."""
    parts = urlsplit(server)
    try:
        pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=CONNECT_S)
    except (OSError, ValueError):
        return "unknown"
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
