"""Keys, digests, boxes and signatures of a secure sum: made again here by direct calls, and the same for ever."""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import SecureSumError, SettingError
from shoal.secure import keys
from shoal.secure.messages import Answer, Shares
from shoal.secure.parameters import Shape
from shoal.secure.terms import Terms

ENTROPY, CONTEXT = bytes(range(32)), bytes(range(32, 64))
TERMS = Terms(
    federation="hospitals", run="r1", session=bytes([1]) * 32, round=3, attempt=0, model=bytes([2]) * 32,
    plan=bytes([3]) * 32, size=10, bits=32, slots=2, threshold=3,
)  # fmt: skip
BOTH = bytes(range(72))
GOLDEN = {
    "terms": "17f4dc43d2c6f9a10fae4995e3879cd7c0ab615e847feed2aaaf9df2b205d194",
    "box": "2676938a19e109a37c73599a73dc11cd3ced2070afca5ec4c0c08c375d9b1941",
    "mask": "2a3c138388a7f52df66f7edb2b237af2eddb37dcb9ded8d2bdb6a27a4441291f",
    "seed": "e5a64b7f85e6b54d5f1db682cd59a9f7af2a6f86d977adaa5851b3031d8fbca0",
    "randomness": "55c4b51d8abb2560bffe84c06c7cc96c",
    "context": "44ad1a1947a9aa9d64c62a2f92367d587b05ffd2ec9f639cb256a9ea885eaae7",
    "pair": "7aea7fc2d18d78f7801e196d8e8676b1319247236553ffb0b7fe5d59b14bde9c",
    "self": "953004ffc8c86f7b3cdf1c0d4e6a2952f791837019d2726fe983733119eaab61",
    "commitments": "7644a3b4ee1b16eda0babd4323b91c3b0a984df62930eb5b8463c002985c83db",
    "sealed": "6dd457479a97466cd397659f179c9765",
}


def framed(*fields: bytes) -> bytes:
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hkdf(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for 32 bytes, from HMAC alone."""
    return hmac.digest(hmac.digest(salt, secret, "sha256"), info + b"\x01", "sha256")


def test_a_clients_secrets_are_hkdf_of_its_entropy_the_terms_and_its_name():
    secrets = keys.secrets_of(ENTROPY, TERMS, "a")
    made = {"box key": secrets.box_key, "mask key": secrets.mask_key, "seed": secrets.seed, "dealing": secrets.dealing}
    for purpose, secret in made.items():
        info = b"shoal-1 secure " + purpose.encode() + b"\0" + framed(b"a")
        assert bytes(secret) == hkdf(ENTROPY, salt=TERMS.digest, info=info)
        assert bytes(secret) == HKDF(SHA256(), 32, TERMS.digest, info).derive(ENTROPY)


def test_other_entropy_another_session_or_another_name_gives_other_secrets():
    other = Terms(**{name: getattr(TERMS, name) for name in TERMS.__struct_fields__} | {"session": bytes(32)})
    made = [
        keys.secrets_of(entropy, terms, name)
        for entropy, terms, name in (
            (ENTROPY, TERMS, "a"), (CONTEXT, TERMS, "a"), (ENTROPY, other, "a"), (ENTROPY, TERMS, "b"),
        )
    ]  # fmt: skip
    parts = [bytes(part) for one in made for part in (one.box_key, one.mask_key, one.seed, one.dealing)]
    assert len(set(parts)) == 16


@pytest.mark.parametrize("size", [0, 31, 33])
def test_entropy_of_another_length_is_refused(size: int):
    with pytest.raises(SettingError, match=f"32 bytes of entropy, not {size}"):
        keys.secrets_of(bytes(size), TERMS, "a")


def test_erased_secrets_are_zeros_in_the_same_memory():
    secrets = keys.secrets_of(ENTROPY, TERMS, "a")
    parts = [secrets.box_key, secrets.mask_key, secrets.seed, secrets.dealing]
    secrets.erase()
    assert [bytes(part) for part in parts] == [bytes(32)] * 4


def test_the_randomness_of_shares_is_aes_in_counter_mode_and_of_one_list_of_keys():
    key = hmac.digest(ENTROPY, b"shoal-1 secure randomness\0" + framed(CONTEXT), "sha256")
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(100))
    assert keys.randomness(ENTROPY, CONTEXT, 100) == stream
    assert keys.randomness(ENTROPY, bytes(32), 100) != stream


def test_the_context_is_a_digest_of_terms_shape_and_list():
    text = framed(TERMS.digest, (88).to_bytes(8, "big"), (36).to_bytes(8, "big"), b"the list")
    assert keys.context(TERMS, Shape(88, 36), b"the list") == sha(b"shoal-1 secure context\0" + text)
    others = {keys.context(TERMS, Shape(88, 37), b"the list"), keys.context(TERMS, Shape(90, 36), b"the list")}
    assert len(others | {keys.context(TERMS, Shape(88, 36), b"the lisp")}) == 3


def test_two_clients_agree_on_what_x25519_says():
    one, other = X25519PrivateKey.from_private_bytes(ENTROPY), X25519PrivateKey.from_private_bytes(CONTEXT)
    public = keys.public_bytes(keys.private_key(bytearray(CONTEXT)))
    assert public == other.public_key().public_bytes_raw()
    agreed = keys.agree(keys.private_key(ENTROPY), keys.public_key(public), owner="b")
    assert agreed == other.exchange(X25519PublicKey.from_public_bytes(one.public_key().public_bytes_raw()))


@pytest.mark.parametrize("point", [bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little")])
def test_a_key_with_which_every_secret_is_zero_names_its_owner(point: bytes):
    with pytest.raises(SecureSumError, match="'b' are worth nothing") as caught:
        keys.agree(keys.private_key(ENTROPY), keys.public_key(point), owner="b")
    assert caught.value.culprit == "b"


def test_the_key_of_a_pair_is_the_same_for_both_and_the_own_one_is_the_seeds():
    text = b"shoal-1 secure pair\0" + framed(CONTEXT, b"a", "ä".encode())
    expected = hmac.new(ENTROPY, text, hashlib.sha256).digest()
    assert keys.pair_key(ENTROPY, CONTEXT, "a", "ä") == keys.pair_key(ENTROPY, CONTEXT, "ä", "a") == expected
    text = b"shoal-1 secure self\0" + framed(CONTEXT, b"a")
    assert keys.self_key(ENTROPY, CONTEXT, "a") == hmac.new(ENTROPY, text, hashlib.sha256).digest()


def test_what_secrets_and_shares_are_compared_with_are_bound_to_everything():
    assert keys.seed_digest(ENTROPY, CONTEXT, "a") == sha(b"shoal-1 secure seed\0" + framed(CONTEXT, b"a", ENTROPY))
    seed, key = (
        sha(b"shoal-1 secure commitment " + kind + b"\0" + framed(CONTEXT, b"a", b"b", share))[:16]
        for kind, share in ((b"seed", BOTH[:36]), (b"key", BOTH[36:]))
    )
    assert keys.commitments(bytearray(BOTH), CONTEXT, "a", "b") == seed + key
    assert keys.commitment(BOTH[:36], CONTEXT, "a", "b", of="seed") == seed
    assert keys.commitment(BOTH[36:], CONTEXT, "a", "b", of="key") == key


def test_a_box_is_chacha20_poly1305_under_a_key_of_its_own():
    info = b"shoal-1 secure share\0" + framed(b"a", b"b")
    key = keys.box_key(ENTROPY, CONTEXT, "a", "b")
    assert key == hkdf(ENTROPY, salt=CONTEXT, info=info)
    box = keys.seal(key, BOTH, "a", "b")
    names = b"shoal-1 secure box\0" + framed(b"a", b"b")
    assert box == ChaCha20Poly1305(key).encrypt(bytes(12), BOTH, names)
    assert len(box) == 88
    assert keys.unseal(key, box, "a", "b") == bytearray(BOTH)
    assert keys.box_key(ENTROPY, CONTEXT, "b", "a") != key


@given(place=st.integers(0, 88 * 8 - 1))
def test_a_box_with_any_bit_flipped_names_the_dealer(place: int):
    box = bytearray(keys.seal(ENTROPY, BOTH, "a", "b"))
    box[place // 8] ^= 1 << place % 8
    with pytest.raises(SecureSumError, match="'a' cannot be read") as caught:
        keys.unseal(ENTROPY, bytes(box), "a", "b")
    assert caught.value.culprit == "a"


@pytest.mark.parametrize(("dealer", "holder"), [("b", "a"), ("a", "c"), ("ab", "")])
def test_a_box_for_another_pair_cannot_be_opened(dealer: str, holder: str):
    with pytest.raises(SecureSumError):
        keys.unseal(ENTROPY, keys.seal(ENTROPY, BOTH, "a", "b"), dealer, holder)


def texts(a: bytes, b: bytes, name: str) -> list[bytes]:
    """One text of each purpose, of the same fields as far as they go."""
    return [
        keys.advertise_text(TERMS, name, a, b),
        keys.shares_text(a, Shares(name, b, (), (), bytes(64))),
        keys.masked_text(a, name, b),
        keys.confirm_text(a, name, b),
        keys.answer_text(a, Answer(name, (b,), bytes(64))),
    ]


def test_the_texts_that_are_signed_are_these():
    one = Shares("a", ENTROPY, (b"x" * 88, b"y" * 88), (b"c" * 32, b"d" * 32), bytes(64))
    answer = Answer("a", (b"s" * 36, b"t" * 36), bytes(64))
    expected = {
        keys.advertise_text(TERMS, "a", ENTROPY, CONTEXT): (b"advertise", TERMS.digest, b"a", ENTROPY, CONTEXT),
        keys.shares_text(CONTEXT, one): (
            b"shares", CONTEXT, b"a", ENTROPY, b"x" * 88 + b"y" * 88, b"c" * 32 + b"d" * 32,
        ),
        keys.masked_text(CONTEXT, "a", ENTROPY): (b"masked", CONTEXT, b"a", ENTROPY),
        keys.confirm_text(CONTEXT, "a", b"\x07"): (b"confirm", CONTEXT, b"a", b"\x07"),
        keys.answer_text(CONTEXT, answer): (b"answer", CONTEXT, b"a", b"s" * 36 + b"t" * 36),
    }  # fmt: skip
    for text, (purpose, *fields) in expected.items():
        assert text == b"shoal-1 secure " + purpose + b"\0" + framed(*fields)


def test_no_text_of_one_purpose_is_one_of_another():
    purposes = [text.split(b"\0")[0] for text in texts(ENTROPY, CONTEXT, "a")]
    assert all(not one.startswith(other) for one, other in combinations(purposes, 2))
    assert len(set(purposes)) == 5


def test_only_the_identitys_own_signature_of_the_text_passes():
    identity = Ed25519PrivateKey.from_private_bytes(ENTROPY)
    public, signature = identity.public_key().public_bytes_raw(), identity.sign(b"text")
    assert keys.verify(public, signature, b"text")
    assert not keys.verify(public, signature, b"texts")
    assert not keys.verify(public, signature[:-1] + bytes([signature[-1] ^ 1]), b"text")
    assert not keys.verify(
        Ed25519PrivateKey.from_private_bytes(CONTEXT).public_key().public_bytes_raw(), signature, b"text"
    )
    assert not keys.verify(public[:31], signature, b"text")
    assert not keys.verify(public, b"", b"text")


def test_fixed_entropy_gives_these_bytes_for_ever():
    secrets = keys.secrets_of(ENTROPY, TERMS, "a")
    box = keys.public_bytes(keys.private_key(secrets.box_key))
    mask = keys.public_bytes(keys.private_key(secrets.mask_key))
    agreed = keys.agree(keys.private_key(secrets.mask_key), keys.public_key(box), owner="b")
    found = {
        "terms": TERMS.digest,
        "box": box,
        "mask": mask,
        "seed": keys.seed_digest(secrets.seed, CONTEXT, "a"),
        "randomness": keys.randomness(secrets.dealing, CONTEXT, 16),
        "context": keys.context(TERMS, Shape(2, 3), b""),
        "pair": keys.pair_key(agreed, CONTEXT, "b", "a"),
        "self": keys.self_key(secrets.seed, CONTEXT, "a"),
        "commitments": keys.commitments(BOTH, CONTEXT, "a", "b"),
        "sealed": keys.seal(keys.box_key(agreed, CONTEXT, "a", "b"), b"", "a", "b"),
    }
    assert {name: value.hex() for name, value in found.items()} == GOLDEN
