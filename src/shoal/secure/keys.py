"""The keys of a secure sum: what each is made of, what is signed with them, and what shares travel in.

Every text begins with its purpose and a zero byte; each field follows behind its length. So no key, digest or
signature of one purpose is ever one of another. All arithmetic on keys is `cryptography`'s: X25519 (RFC 7748), Ed25519
(RFC 8032), HKDF and HMAC with SHA-256 (RFC 5869, 2104), ChaCha20-Poly1305 (RFC 8439), AES-256 in counter mode.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shoal.errors import SecureSumError, SettingError
from shoal.secure.messages import Answer, Shares
from shoal.secure.parameters import Shape
from shoal.secure.terms import Terms

Buffer: TypeAlias = bytes | bytearray
Kind = Literal["seed", "key"]
"""Which of a client's two secrets: the seed of its own mask, or its mask key."""

NONCE = bytes(12)
"""Of every box: a box's key is made for that box alone and seals once."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a client draws for one session: two X25519 private keys, the seed of its own mask, and the key of the
    randomness that its shares are made with, each 32 bytes."""

    box_key: bytearray
    mask_key: bytearray
    seed: bytearray
    dealing: bytearray

    def erase(self) -> None:
        """Overwrites all of them. Twice is once."""
        for secret in (self.box_key, self.mask_key, self.seed, self.dealing):
            erase(secret)


def secrets_of(entropy: bytes, terms: Terms, name: str) -> Secrets:
    """A client's secrets from 32 bytes that nobody else knows, which serve one client in one session.

    Other terms give other secrets: a machine that was copied with its entropy repeats no key in another session.
    """
    if len(entropy) != 32:
        raise SettingError(f"a secure sum is given 32 bytes of entropy, not {len(entropy)}")
    return Secrets(*(_part(entropy, purpose, terms, name) for purpose in ("box key", "mask key", "seed", "dealing")))


def erase(secret: bytearray) -> None:
    """Overwrites the bytes with zeros, in place."""
    secret[:] = bytes(len(secret))


def randomness(dealing: Buffer, context: bytes, size: int) -> bytes:
    """So many bytes to make shares with: AES-256 in counter mode, from a key of this session and these participants."""
    key = hmac.digest(dealing, _text("randomness", context), "sha256")
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def private_key(secret: Buffer) -> X25519PrivateKey:
    """The key of 32 bytes, parsed: any 32 bytes are one."""
    return X25519PrivateKey.from_private_bytes(secret)


def public_key(data: bytes) -> X25519PublicKey:
    """The public key of 32 bytes, parsed: any 32 bytes are one. What it is worth shows when keys are agreed on."""
    return X25519PublicKey.from_public_bytes(data)


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The public key of a private one, 32 bytes."""
    return private.public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: X25519PublicKey, *, owner: str) -> bytes:
    """The secret that two clients share, 32 bytes; SecureSumError, of the public key's owner, for a point that makes
    it zero whatever the private key is."""
    try:
        return private.exchange(public)
    except ValueError:
        why = f"the keys of {owner!r} are worth nothing: every secret that is agreed on with them is zero"
        raise SecureSumError(why, culprit=owner) from None


def context(terms: Terms, shape: Shape, advertised: bytes) -> bytes:
    """SHA-256 of all that masks, shares and signatures are bound to: the terms, the shape, and the bytes of Advertised.

    The graph is drawn from it too, so that nobody knows neighbours before all keys are known.
    """
    shaped = shape.neighbours.to_bytes(8, "big"), shape.threshold.to_bytes(8, "big")
    return _hash("context", terms.digest, *shaped, advertised)


def pair_key(shared: bytes, context: bytes, one: str, other: str) -> bytes:
    """The key of the mask that two clients share, 32 bytes, the same in either order of their names."""
    first, second = sorted((one, other))
    return hmac.digest(shared, _text("pair", context, first.encode(), second.encode()), "sha256")


def self_key(seed: Buffer, context: bytes, name: str) -> bytes:
    """The key of a client's own mask, 32 bytes."""
    return hmac.digest(seed, _text("self", context, name.encode()), "sha256")


def seed_digest(seed: Buffer, context: bytes, name: str) -> bytes:
    """What a seed is compared with when it was rebuilt: 32 bytes that say nothing about it."""
    return _hash("seed", context, name.encode(), seed)


def commitment(share: Buffer, context: bytes, dealer: str, holder: str, *, of: Kind) -> bytes:
    """What one share is compared with, 16 bytes."""
    return _hash("commitment " + of, context, dealer.encode(), holder.encode(), share)[:16]


def commitments(both: Buffer, context: bytes, dealer: str, holder: str) -> bytes:
    """What the two shares of a box are compared with, that of the seed first: 32 bytes."""
    half = len(both) // 2
    seed = commitment(both[:half], context, dealer, holder, of="seed")
    return seed + commitment(both[half:], context, dealer, holder, of="key")


def box_key(shared: bytes, context: bytes, dealer: str, holder: str) -> bytes:
    """The key of the one box that goes from the dealer to the holder, 32 bytes."""
    return HKDF(SHA256(), 32, context, _text("share", dealer.encode(), holder.encode())).derive(shared)


def seal(key: bytes, shares: Buffer, dealer: str, holder: str) -> bytes:
    """The box of a dealer's two shares, that of the seed first: 72 bytes and a tag of 16."""
    return ChaCha20Poly1305(key).encrypt(NONCE, shares, _text("box", dealer.encode(), holder.encode()))


def unseal(key: bytes, box: bytes, dealer: str, holder: str) -> bytearray:
    """The two shares in a box; SecureSumError, of the dealer, for a box that was sealed otherwise."""
    try:
        return bytearray(ChaCha20Poly1305(key).decrypt(NONCE, box, _text("box", dealer.encode(), holder.encode())))
    except InvalidTag:
        raise SecureSumError(
            f"the shares of {dealer!r} cannot be read: they are damaged, or it was told of other terms or clients",
            culprit=dealer,
        ) from None


def advertise_text(terms: Terms, name: str, box: bytes, mask: bytes) -> bytes:
    """What a client signs for its two public keys."""
    return _text("advertise", terms.digest, name.encode(), box, mask)


def shares_text(context: bytes, message: Shares) -> bytes:
    """What a client signs for its shares."""
    fields = message.client.encode(), message.seed, b"".join(message.boxes), b"".join(message.commitments)
    return _text("shares", context, *fields)


def masked_text(context: bytes, name: str, body: bytes) -> bytes:
    """What a client signs for its contribution; `body` is the SHA-256 of the bytes."""
    return _text("masked", context, name.encode(), body)


def confirm_text(context: bytes, name: str, survivors: bytes) -> bytes:
    """What a client signs for the survivors that it was told of, a bitmap."""
    return _text("confirm", context, name.encode(), survivors)


def answer_text(context: bytes, message: Answer) -> bytes:
    """What a client signs for its answer."""
    return _text("answer", context, message.client.encode(), b"".join(message.shares))


def verify(identity: bytes, signature: bytes, text: bytes) -> bool:
    """Whether a signature is that of an identity, 32 bytes; False for anything that is no key or no signature."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _part(entropy: bytes, purpose: str, terms: Terms, name: str) -> bytearray:
    return bytearray(HKDF(SHA256(), 32, terms.digest, _text(purpose, name.encode())).derive(entropy))


def _hash(purpose: str, *fields: Buffer) -> bytes:
    return hashlib.sha256(_text(purpose, *fields)).digest()


def _text(purpose: str, *fields: Buffer) -> bytes:
    parts = b"".join([len(field).to_bytes(4, "big") + field for field in fields])
    return b"shoal-1 secure " + purpose.encode() + b"\0" + parts
