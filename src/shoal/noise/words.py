"""Uniform 64-bit words from a key of 32 bytes: the randomness under all noise that has to protect somebody."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from jaxtyping import UInt64

from shoal.errors import SettingError

KEY_BYTES = 32
PIECE = 2**13
"""Words at a time: they, and what is computed from them, fit in a core's cache."""

_ZEROS = memoryview(bytes(8 * PIECE))


class Words:
    """The words of a key in order, each given once: AES-256 in counter mode (NIST SP 800-38A, section 6.5).

    Words are little-endian, the counter begins at zero; words that were asked for and not used are not kept.

    >>> hex(Words(bytes(32)).take(1)[0])
    '0x898940a278c095dc'
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise SettingError(f"the key of a stream of words has {KEY_BYTES} bytes, not {len(key)}")
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def take(self, count: int) -> UInt64[np.ndarray, " count"]:
        """The next words."""
        room = memoryview(bytearray(8 * count))
        for start in range(0, len(room), len(_ZEROS)):
            piece = room[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(piece)], piece)
        return np.frombuffer(room, "<u8")
