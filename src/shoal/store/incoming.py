"""A blob that is arriving: parts in any order, each checked while it is written, from whoever comes back with it."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType

from shoal.errors import ConflictError, StoreError, WireError
from shoal.store.durable import create, told
from shoal.wire.blobs import check_manifest, check_part, part_span
from shoal.wire.messages import Manifest

_PIECE = 256 * 1024


class Incoming:
    """A blob's temporary file, and which of its parts are there. Made by `BlobStore.incoming`.

    A part counts when all of it was written and its digest is the one declared. Several may be written at a time,
    from any thread; of two that write the same part, the one that began later wins. Only `commit`, and `missing` after
    a restart, take long, and nothing waits for a commit but another.
    """

    def __init__(self, temporary: Path, manifest: Manifest, *, settle: Callable[[Path], None]) -> None:
        check_manifest(manifest, most_bytes=max(manifest.size_bytes, manifest.raw_bytes))
        self.manifest = manifest
        self._temporary, self._settle = temporary, settle
        self._lock = threading.Lock()
        self._writers: dict[int, PartWriter] = {}
        self.open, self.settling = True, False
        with told("keep what is uploaded"):
            create(temporary)
            if temporary.stat().st_size > manifest.size_bytes:
                os.truncate(temporary, manifest.size_bytes)
            self._have: set[int] | None = None if temporary.stat().st_size else set()

    def missing(self) -> tuple[int, ...]:
        """The parts that are not there yet. After a restart, the first time, the disk's are hashed again."""
        with self._lock:
            have = self._there()
            return tuple(number for number in range(len(self.manifest.parts)) if number not in have)

    def has(self, number: int) -> bool:
        """True if a part is there."""
        with self._lock:
            return number in self._there()

    def begin(self, number: int) -> PartWriter:
        """Takes a part's bytes as they come: `write` them, then `finish`. Whoever wrote the same part loses.

        WireError if there is no such part; ConflictError if it is there already.
        """
        offset, length = part_span(self.manifest, number)
        with self._lock:
            self._check_open()
            if number in self._there():
                raise ConflictError(f"part {number} is there already")
            with told("keep what is uploaded"):
                writer = PartWriter(
                    self._temporary, offset=offset, length=length, lock=self._lock, take=partial(self._take, number)
                )
            if number in self._writers:
                self._writers[number].close()
            self._writers[number] = writer
        return writer

    def put(self, number: int, data: bytes | Iterable[bytes]) -> None:
        """Writes a whole part, unless it is there; WireError if it is not what was declared."""
        part_span(self.manifest, number)
        if self.has(number):
            return
        with self.begin(number) as writer:
            for chunk in (data,) if isinstance(data, bytes) else data:
                writer.write(chunk)
            writer.finish()

    def commit(self) -> None:
        """Makes the blob durable under its name; StoreError if parts are missing, or the disk or network cannot.

        After a failure what came is there still, and it may be tried again.
        """
        with self._lock:
            self._check_open()
            missing = len(self.manifest.parts) - len(self._there())
            if missing:
                raise StoreError(f"{missing} of {len(self.manifest.parts)} parts of the blob are missing")
            self._close_writers()
            self.settling = True
        durable = False
        try:
            with told("make a blob durable"):
                self._settle(self._temporary)
            durable = True
        finally:
            with self._lock:
                self.open = self.open and not durable
                if not self.open:
                    self._temporary.unlink(missing_ok=True)
                self.settling = False  # after that the file may be another one's

    def abandon(self) -> None:
        """Forgets what has come. What is being made durable just now becomes so."""
        with self._lock:
            if self.open:
                self.open = False
                self._close_writers()
                if not self.settling:
                    with told("remove an upload"):
                        self._temporary.unlink(missing_ok=True)

    def _there(self) -> set[int]:
        if self._have is None:
            with told("read what was uploaded"):
                self._have = set(_whole_parts(self._temporary, self.manifest))
        return self._have

    def _take(self, number: int, digest: bytes) -> None:
        del self._writers[number]
        check_part(self.manifest, number, digest)
        self._there().add(number)

    def _check_open(self) -> None:
        if not self.open or self.settling:
            raise ConflictError("this upload is over: another one took its place, or it is complete")

    def _close_writers(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


class PartWriter:
    """Writes one part. Leaving it without `finish` leaves the part missing."""

    def __init__(
        self, path: Path, *, offset: int, length: int, lock: threading.Lock, take: Callable[[bytes], None]
    ) -> None:
        self._lock, self._take, self._left = lock, take, length
        self._digest = hashlib.sha256()
        self._file = path.open("rb+", buffering=0)
        self._file.seek(offset)

    def write(self, chunk: bytes | memoryview) -> None:
        """Appends to the part. WireError if that is more than was declared; ConflictError if another one writes it."""
        if len(chunk) > self._left:
            self.close()
            raise WireError("the part holds more bytes than were declared")
        with self._lock:
            self._check_open()
            with told("keep what is uploaded"):
                view = memoryview(chunk)
                while view:
                    view = view[self._file.write(view) :]
        self._digest.update(chunk)
        self._left -= len(chunk)

    def finish(self) -> None:
        """The part is there from now on; WireError if it is too short, or its digest is not the one declared."""
        with self._lock:
            self._check_open()
            self.close()
            if self._left:
                raise WireError(f"the part ended {self._left:,} bytes too early")
            self._take(self._digest.digest())

    def close(self) -> None:
        """Writes no more."""
        self._file.close()

    def _check_open(self) -> None:
        if self._file.closed:
            raise ConflictError("the part is being sent by somebody else, or its upload is over")

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _whole_parts(path: Path, manifest: Manifest) -> Iterable[int]:
    """The parts that a file holds already, as after a restart."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for number, wanted in enumerate(manifest.parts):
            offset, length = part_span(manifest, number)
            if offset + length > size:
                return
            file.seek(offset)
            digest = hashlib.sha256()
            while length:
                piece = file.read(min(_PIECE, length))
                digest.update(piece)
                length -= len(piece)
            if digest.digest() == wanted:
                yield number
