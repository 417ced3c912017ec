"""What is signed, and how: one text of bytes for each purpose, so that no signature fits another.

Every text begins with its purpose and a zero byte; each field follows behind its length. Signatures are Ed25519 with
the key that a client made for itself; requests within a session carry HMAC-SHA256 with the session's key.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def digest_of(body: bytes) -> str:
    """SHA-256 of a request's body, in hexadecimal: what its header says."""
    return hashlib.sha256(body).hexdigest()


def to_sign(method: str, path: str, counter: int, digest: str) -> bytes:
    """What the MAC of a request is made of. `path` includes the query, `counter` is from 0 to 2**64 - 1.

    >>> to_sign("GET", "/", 1, "")
    b'shoal-1 request\\x00\\x00\\x00\\x00\\x03GET\\x00\\x00\\x00\\x01/\\x00\\x00\\x00\\x08\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\x00'
    """  # noqa: E501
    return _text("request", method.encode(), path.encode(), counter.to_bytes(8, "big"), digest.encode())


def mac(key: bytes, signed: bytes) -> str:
    """HMAC-SHA256 of what `to_sign` gave, in hexadecimal."""
    return hmac.digest(key, signed, "sha256").hex()


def check_mac(key: bytes, signed: bytes, *, given: str) -> bool:
    """Whether `given` is the MAC; takes as long for a wrong one as for the right one."""
    return hmac.compare_digest(mac(key, signed).encode(), given.encode("utf-8", "surrogatepass"))


def enroll_bytes(federation: str, token: str, name: str, public_key: bytes) -> bytes:
    """What a client signs when it enrols: it holds the key that it hands in, for this federation."""
    return _text("enroll", federation.encode(), token.encode(), name.encode(), public_key)


def hello_bytes(federation: str, boot: str, client: str, incarnation: str, nonce: bytes) -> bytes:
    """What a client signs when it opens a session. A server's next start has another `boot`: nothing is replayed."""
    return _text("hello", federation.encode(), boot.encode(), client.encode(), incarnation.encode(), nonce)


def new_key() -> bytes:
    """A new private key, 32 bytes."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key_of(private: bytes) -> bytes:
    """The public key of a private one, 32 bytes."""
    public = Ed25519PrivateKey.from_private_bytes(private).public_key()
    return public.public_bytes(Encoding.Raw, PublicFormat.Raw)


def sign(private: bytes, data: bytes) -> bytes:
    """The Ed25519 signature, 64 bytes, with a private key of 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).sign(data)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether a signature is that of the public key's owner; False for anything that is no key or no signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _text(purpose: str, *fields: bytes) -> bytes:
    return b"".join(
        [b"shoal-1 ", purpose.encode(), b"\0", *(len(field).to_bytes(4, "big") + field for field in fields)]
    )
