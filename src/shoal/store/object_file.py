"""An object of a service, read like a file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from shoal.errors import StoreError
from shoal.extras import needed

_WINDOW = 8 * 1024 * 1024
"""What is asked for at once: a client's part, in one answer that is read to its end, so that its connection lasts."""
_PIECE = 256 * 1024
_TRIES = 4


class ObjectFile(io.RawIOBase):
    """Reads where one seeks to. `get` gives what is read from `start`, of at most `length` bytes.

    A connection that ends in the middle is begun again where it was. StoreError if it does so again and again.
    """

    def __init__(self, get: Callable[[int, int], Any], *, size: int) -> None:
        super().__init__()
        self._get, self._size = get, size
        self._at = self._left = 0
        self._body: Any = None
        self._broken = (needed("botocore.exceptions", "s3").BotoCoreError, OSError)

    @classmethod
    def buffered(cls, get: Callable[[int, int], Any], *, size: int) -> BinaryIO:
        """An object whose `read` gives all that is asked for, or what there is."""
        return cast("BinaryIO", io.BufferedReader(cls(get, size=size), _PIECE))

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Goes to another place; what is read from there is asked for when it is read."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at != self._at:
            self._let_go()
            self._at = at
        return at

    def readinto(self, buffer: Any, /) -> int:
        """Reads into a buffer; how many bytes that were, 0 at the end."""
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        for _ in range(_TRIES):
            if data := self._read(wanted):
                buffer[: len(data)] = data
                return len(data)
        raise StoreError("could not read a blob: its connection ended again and again. Look at the network, and retry")

    def close(self) -> None:
        """Lets the connection go."""
        self._let_go()
        super().close()

    def _read(self, wanted: int) -> bytes:
        """Some bytes; none if the connection ended."""
        if self._body is None:
            self._left = min(_WINDOW, self._size - self._at)
            self._body = self._get(self._at, self._left)
        try:
            data: bytes = self._body.read(min(wanted, self._left))
        except self._broken:
            data = b""
        self._at += len(data)
        self._left -= len(data)
        if not data or not self._left:
            self._let_go()
        return data

    def _let_go(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None
