"""Joining a federation: whom to trust, and the enrolment, at the first time; at every other the same client again."""

from __future__ import annotations

import hashlib
import re
import ssl
import warnings
from dataclasses import replace
from http import HTTPStatus

import urllib3
from urllib3.util import Timeout

from shoal.client.connection import server_info
from shoal.client.enrolment import enrol
from shoal.client.identity import Home, Identity
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.tls import CONNECT_S, READ_S, Pool, checked_url, why_unreachable
from shoal.errors import ServerError, SettingError

_MOST_PEM_BYTES = 1 << 16


def joined(
    home: Home, server: str, *, token: str | None = None, name: str | None = None, authority: str | None = None
) -> Identity:
    """Who the client of a home is at a server: as it enrolled once, or from now on, under a name and for a token.

    A server that has moved is taken for the same if it is the same federation. `authority` is the certificate (PEM)
    to trust, None for the one that was trusted before, or else whom the system trusts.
    """
    server, before = checked_url(server), home.identity
    if before is not None and authority is None:
        authority = before.authority
    line = Line(server, authority=authority, patient=False)
    try:
        if before is None:
            return _enrolled(home, line, token=token, name=name, authority=authority)
        return _again(home, line, before, name=name, authority=authority)
    finally:
        line.close()


def _enrolled(home: Home, line: Line, *, token: str | None, name: str | None, authority: str | None) -> Identity:
    if token is None or name is None:
        raise SettingError(
            f"{home.folder} is not enrolled yet: that takes a name, and a token from the server's operator "
            "(shoal token)"
        )
    with Ledger(home.folder / "ledger.db") as ledger:
        return enrol(home, line, token=token, name=name, ledger=ledger, authority=authority)


def _again(home: Home, line: Line, before: Identity, *, name: str | None, authority: str | None) -> Identity:
    if name not in (None, before.name):
        raise SettingError(f"{home.folder} is enrolled as {before.name}, and not as {name}: give each name a home")
    if (line.server, authority) == (before.server, before.authority):
        return before
    federation = line.attempt(lambda: server_info(line)).federation
    if federation != before.federation:
        raise SettingError(
            f"{home.folder} belongs to the federation {before.federation}, and {line.server} is {federation}: choose "
            "another home for it"
        )
    moved = replace(before, server=line.server, authority=authority)
    home.remember(moved)
    return moved


def authority_with(server: str, fingerprint: str) -> str:
    """The certificate (PEM) of the authority that a server made for itself, if its SHA-256 is the fingerprint.

    The fingerprint comes from the server's operator by another way. ServerError if it is of another certificate:
    nothing but this question has left then.
    """
    wanted = re.sub(r"[:\s]", "", fingerprint).lower()
    if not re.fullmatch("[0-9a-f]{64}", wanted):
        raise SettingError("a fingerprint is the SHA-256 that the server printed: 64 digits of 0-9 and a-f")
    server = checked_url(server)
    pem = _shown_authority(server)
    try:
        shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except ValueError:
        raise ServerError(f"{server} answers, but it is not a Shoal server", code="not-shoal") from None
    if shown != wanted:
        raise ServerError(
            f"{server} shows an authority with another fingerprint, {shown}: ask its operator for the right one. If "
            "they are sure of theirs, somebody is in between",
            code="certificate",
        )
    return pem


def _shown_authority(server: str) -> str:
    """What a server, whoever it is, says is its authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pool = Pool(server, authority=None, context=context)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)  # the fingerprint verifies
            response = pool.manager.request(
                "GET", f"{server}/v1/authority", preload_content=False, redirect=False, retries=False,
                timeout=Timeout(connect=CONNECT_S, read=READ_S),
            )  # fmt: skip
        text = response.read(_MOST_PEM_BYTES).decode("ascii", "replace").strip()
        response.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise why_unreachable(error, server) from error
    finally:
        pool.clear()
    if response.status == HTTPStatus.NOT_FOUND:
        raise ServerError(
            f"{server} has no authority of its own making: leave the fingerprint out if the system trusts its "
            "certificate, or give the authority's file",
            code="not-found",
        )
    return text
