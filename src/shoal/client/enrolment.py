"""Enrolment: a token, once, for a key that was made here."""

from __future__ import annotations

from shoal.client.connection import server_info
from shoal.client.identity import Home, Identity
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.errors import ServerError
from shoal.wire.codec import decode, encode
from shoal.wire.messages import Enroll, Enrolled
from shoal.wire.signing import enroll_bytes, public_key_of, sign


def enrol(home: Home, line: Line, *, token: str, name: str, ledger: Ledger, authority: str | None = None) -> Identity:
    """Who the client is from now on, under a name and for a token; it is kept in the home.

    The same key may ask again, after an answer that was lost: the server gives it what it has. ServerError for a
    token that is not taken, and for a home whose client belongs to another federation.
    """
    before = home.identity
    private = home.private_key
    public = public_key_of(private)

    def exchange() -> Identity:
        info = server_info(line)
        if before is not None and before.federation != info.federation:
            raise ServerError(
                f"{home.folder} belongs to {before.name} in the federation {before.federation}, and {line.server} is "
                f"{info.federation}: choose another home for it",
                code="federation",
            )
        signature = sign(private, enroll_bytes(info.federation, token, name, public))
        message = Enroll(token=token, name=name, public_key=public, signature=signature)
        ledger.record("enroll", detail=f"the name {name} and a public key, to {info.federation} at {line.server}")
        answer = decode(line.send("POST", "/v1/enroll", body=encode(message), kind="enrolment"), Enrolled)
        return Identity(line.server, answer.federation, answer.client, answer.name, authority)

    identity = line.attempt(exchange)
    home.remember(identity)
    return identity
