"""A second implementation of a secure sum, from the page in docs/secure.md alone: plain integers, no NumPy, no Shoal.

It is written to be read, and to be compared with: it makes again what a client sent, and takes the masks off as a
server does, from nothing but the published vectors. Primitives are those of `cryptography` and of the standard library.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PRIME = 2**31 - 1
TERMS = (
    "federation", "run", "session", "round", "attempt", "model", "plan",
    "size", "bits", "slots", "threshold", "corrupt", "version",
)  # fmt: skip


# -- bytes ------------------------------------------------------------------------------------------------------------


def packed(value):
    """msgpack, as short as it can be."""
    if isinstance(value, (list, tuple)):
        assert len(value) < 2**16
        head = bytes([0x90 + len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
        return head + b"".join(map(packed, value))
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, int):
        if value < 128:
            return bytes([value])
        kinds = ((2**8, 0xCC, ">B"), (2**16, 0xCD, ">H"), (2**32, 0xCE, ">I"), (2**64, 0xCF, ">Q"))
        return next(bytes([tag]) + struct.pack(form, value) for end, tag, form in kinds if value < end)
    text = isinstance(value, str)
    data = value.encode() if text else value
    if text and len(data) < 32:
        return bytes([0xA0 + len(data)]) + data
    first = 0xD9 if text else 0xC4
    sizes = ((2**8, 0, ">B"), (2**16, 1, ">H"), (2**32, 2, ">I"))
    return (
        next(bytes([first + more]) + struct.pack(form, len(data)) for end, more, form in sizes if len(data) < end)
        + data
    )


def unpacked(data):
    """What msgpack of arrays, small numbers, texts and bytes says."""
    value, rest = _unpacked(data)
    assert not rest
    return value


def _unpacked(data):
    first, data = data[0], data[1:]
    if first < 0x80:
        return first, data
    if 0x90 <= first < 0xA0 or first == 0xDC:
        count, data = (first - 0x90, data) if first < 0xA0 else (int.from_bytes(data[:2], "big"), data[2:])
        items = []
        for _ in range(count):
            item, data = _unpacked(data)
            items.append(item)
        return items, data
    if 0xA0 <= first < 0xC0:
        return data[: first - 0xA0].decode(), data[first - 0xA0 :]
    width = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2}[first]
    size, data = int.from_bytes(data[:width], "big"), data[width:]
    return (data[:size].decode() if first >= 0xD9 else data[:size]), data[size:]


def text(purpose, *fields):
    """A purpose and its fields, each behind its length."""
    fields = [field.encode() if isinstance(field, str) else field for field in fields]
    return b"shoal-1 secure " + purpose.encode() + b"\0" + b"".join(struct.pack(">I", len(f)) + f for f in fields)


def sha256(data):
    return hashlib.sha256(data).digest()


def hmac256(key, data):
    return hmac.new(key, data, "sha256").digest()


def hkdf(secret, salt, info):
    return HKDF(SHA256(), 32, salt, info).derive(secret)


def stream(key, size):
    """So many bytes of AES-256 in counter mode, from zero."""
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def public(private):
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agreed(private, other):
    return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))


def chosen(bits):
    """The set that a bitmap is."""
    return [i for i in range(8 * len(bits)) if bits[i // 8] >> i % 8 & 1]


def terms_of(terms):
    """Terms by field."""
    return {field: getattr(terms, field) for field in TERMS}


# -- the session ------------------------------------------------------------------------------------------------------


class Session:
    """What everybody knows once keys are known: terms, shape, and the bytes of the message of all keys."""

    def __init__(self, terms, shape, advertised):
        self.terms = terms
        self.terms_digest = sha256(b"shoal-1 secure terms\0" + packed([terms[field] for field in TERMS]))
        self.neighbours, self.threshold = shape
        shaped = struct.pack(">Q", self.neighbours), struct.pack(">Q", self.threshold)
        self.context = sha256(text("context", self.terms_digest, *shaped, advertised))
        _, advertisements = unpacked(advertised)
        self.names = [name for _, name, _, _, _ in advertisements]
        self.box_keys = [key for _, _, key, _, _ in advertisements]
        self.mask_keys = [key for _, _, _, key, _ in advertisements]
        assert self.names == sorted(self.names)

    def holders(self, client):
        """Who holds shares of a client, in order; the one at place j has the polynomials' values at j + 1."""
        count = len(self.names)
        if self.neighbours == count - 1:
            return list(range(count))
        ring = sorted(range(count), key=lambda i: sha256(self.context + self.names[i].encode()))
        place, half = ring.index(client), self.neighbours // 2
        return sorted(ring[(place + step) % count] for step in range(-half, half + 1) if step)

    def pair_key(self, private, one, other):
        """The key of the mask of two clients, from the private key of one of them."""
        first, second = sorted((self.names[one], self.names[other]))
        return hmac256(agreed(private, self.mask_keys[other]), text("pair", self.context, first, second))

    def self_key(self, seed, client):
        return hmac256(seed, text("self", self.context, self.names[client]))

    def mask(self, key):
        """The mask of a key: an integer for each entry, and one for each slot."""
        width, size, slots = self.terms["bits"] // 8, self.terms["size"], self.terms["slots"]
        after = (size * width + 15) // 16 * 16
        data = stream(key, after + 8 * slots)
        value = [int.from_bytes(data[i : i + width], "little") for i in range(0, size * width, width)]
        return value, [int.from_bytes(data[i : i + 8], "little") for i in range(after, len(data), 8)]

    def entries(self, body):
        """The integers that a contribution's bytes are."""
        width, end = self.terms["bits"] // 8, self.terms["size"] * self.terms["bits"] // 8
        value = [int.from_bytes(body[i : i + width], "little") for i in range(0, end, width)]
        return value, [int.from_bytes(body[i : i + 8], "little") for i in range(end, len(body), 8)]

    def body(self, value, slots):
        width = self.terms["bits"] // 8
        return b"".join([v.to_bytes(width, "little") for v in value] + [s.to_bytes(8, "little") for s in slots])

    def added(self, total, more, sign):
        moduli = 2 ** self.terms["bits"], 2**64
        return tuple(
            [(a + sign * b) % modulus for a, b in zip(one, other, strict=True)]
            for one, other, modulus in zip(total, more, moduli, strict=True)
        )


# -- a client ---------------------------------------------------------------------------------------------------------


class Client:
    """What a client makes from its 32 bytes of entropy."""

    def __init__(self, entropy, terms, name):
        salt = sha256(b"shoal-1 secure terms\0" + packed([terms[field] for field in TERMS]))
        made = [hkdf(entropy, salt, text(purpose, name)) for purpose in ("box key", "mask key", "seed", "dealing")]
        self.name = name
        self.box_key, self.mask_key, self.seed, self.dealing = made

    def public_keys(self):
        return public(self.box_key), public(self.mask_key)

    def dealt(self, session):
        """Both shares for each holder, that of the seed first, 36 bytes each."""
        holders = session.holders(session.names.index(self.name))
        degree = session.threshold - 1
        # Randomness is by degree, then by secret, then by limb.
        draws = stream(hmac256(self.dealing, text("randomness", session.context)), 8 * 2 * 9 * degree)
        numbers = [int.from_bytes(draws[i : i + 8], "little") % PRIME for i in range(0, len(draws), 8)]
        shares = [b""] * len(holders)
        for which, secret in enumerate((self.seed, self.mask_key)):
            for limb in range(9):
                constant = int.from_bytes(secret, "little") >> 30 * limb & 2**30 - 1
                polynomial = [constant, *(numbers[18 * power + 9 * which + limb] for power in range(degree))]
                for j in range(len(holders)):
                    value = sum(c * (j + 1) ** power for power, c in enumerate(polynomial)) % PRIME
                    shares[j] += value.to_bytes(4, "little")
        return shares

    def shares(self, session):
        """The fields of its message of shares: digest of the seed, boxes, commitments."""
        own = session.names.index(self.name)
        boxes, commitments = [], []
        for holder, both in zip(session.holders(own), self.dealt(session), strict=True):
            other = session.names[holder]
            fits = [
                sha256(text(f"commitment {of}", session.context, self.name, other, part))[:16]
                for of, part in (("seed", both[:36]), ("key", both[36:]))
            ]
            key = hkdf(agreed(self.box_key, session.box_keys[holder]), session.context, text("share", self.name, other))
            boxes.append(ChaCha20Poly1305(key).encrypt(bytes(12), both, text("box", self.name, other)))
            commitments.append(b"".join(fits))
        return sha256(text("seed", session.context, self.name, self.seed)), boxes, commitments

    def masked(self, session, shared, contribution):
        """The contribution under its masks, as bytes; `shared` says who has shared, by number."""
        own = session.names.index(self.name)
        total = session.added(contribution, session.mask(session.self_key(self.seed, own)), 1)
        for other in session.holders(own):
            if other in shared and other != own:
                mask = session.mask(session.pair_key(self.mask_key, own, other))
                total = session.added(total, mask, 1 if own < other else -1)
        return session.body(*total)


# -- the server -------------------------------------------------------------------------------------------------------


def rebuilt(points):
    """The secret of 32 bytes whose shares (36 bytes) lie at these points."""
    number = 0
    for limb in range(9):
        at_zero = 0
        for x, share in points.items():
            factor = int.from_bytes(share[4 * limb : 4 * limb + 4], "little")
            for other in points:
                if other != x:
                    factor = factor * other * pow(other - x, -1, PRIME) % PRIME
            at_zero += factor
        number += at_zero % PRIME << 30 * limb
    return number.to_bytes(32, "little")


def secret_of(session, client, shared, answers):
    """What the answers' shares of a client give: its seed if it is in the sum, else its mask key."""
    points = {}
    for holder, shares in answers.items():
        dealers = [dealer for dealer in session.holders(holder) if dealer in shared]
        if client in dealers:
            points[session.holders(client).index(holder) + 1] = shares[dealers.index(client)]
    return rebuilt(dict(list(points.items())[: session.threshold]))


def unmasked(session, shared, survivors, bodies, answers):
    """The sum of the survivors, from their masked bodies and from the answers' shares, both by client number."""
    total = [0] * session.terms["size"], [0] * session.terms["slots"]
    for client in survivors:
        total = session.added(total, session.entries(bodies[client]), 1)
    for client in shared:
        secret = secret_of(session, client, shared, answers)
        if client in survivors:
            total = session.added(total, session.mask(session.self_key(secret, client)), -1)
            continue
        assert public(secret) == session.mask_keys[client]
        for other in session.holders(client):
            if other in survivors and other != client:
                # What the other added for this client, or subtracted, is taken back.
                mask = session.mask(session.pair_key(secret, client, other))
                total = session.added(total, mask, -1 if other < client else 1)
    return total


# -- signatures -------------------------------------------------------------------------------------------------------


def signed_text(what, session, fields):
    """What the signature of a client's message is over; `fields` are those of the message but for the signature."""
    context, joined = session.context, [b"".join(f) if isinstance(f, list) else f for f in fields]
    purpose = {"advertisement": "advertise", "confirmation": "confirm"}.get(what, what)
    return text(purpose, session.terms_digest if what == "advertisement" else context, *joined)


def check_signature(identity, signature, signed):
    Ed25519PublicKey.from_public_bytes(identity).verify(signature, signed)
