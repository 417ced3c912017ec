"""Blobs as files: each whole under its name, or not there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from shoal.errors import StoreError
from shoal.store.arrivals import Arrivals
from shoal.store.durable import settle, told
from shoal.store.incoming import Incoming
from shoal.wire.blobs import blob_id, manifest_of
from shoal.wire.messages import Manifest

_ID = re.compile("[0-9a-f]{64}")


class Blobs:
    """A folder of blobs, for one process at a time: `ab/abcd....blob`, and `incoming/` for what is not whole yet.

    Only this user can read it. Methods raise StoreError where the disk cannot do what was asked.
    """

    at_once = 4

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._arrivals = Arrivals(self._folder / "incoming")

    @property
    def folder(self) -> Path:
        """Where the blobs lie."""
        return self._folder

    def path(self, blob: str) -> Path:
        """Where a blob is, or would be."""
        return self._folder / place_of(blob)

    def has(self, blob: str) -> bool:
        """True for a blob that is there, whole."""
        return self.path(blob).is_file()

    def size(self, blob: str) -> int:
        """How many bytes a blob has."""
        with told(f"find the blob {blob[:12]}"):
            return self.path(blob).stat().st_size

    def open(self, blob: str) -> BinaryIO:
        """A blob's file, for reading."""
        with told(f"open the blob {blob[:12]}"):
            return self.path(blob).open("rb")

    def read(self, blob: str, *, offset: int, length: int) -> bytes:
        """A range of a blob's bytes: fewer at its end."""
        with self.open(blob) as file, told(f"read the blob {blob[:12]}"):
            file.seek(offset)
            return file.read(length)

    def delete(self, blob: str) -> None:
        """Removes a blob, if it is there."""
        with told(f"remove the blob {blob[:12]}"):
            self.path(blob).unlink(missing_ok=True)

    def ids(self) -> Iterator[str]:
        """The blobs that are there, so that those that no row names can be removed."""
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*.blob"):
            yield path.stem

    def free_bytes(self) -> int:
        """How much room there is on the disk."""
        return self._arrivals.free_bytes()

    def incoming(self, key: str, manifest: Manifest) -> Incoming:
        """Where the parts of a blob arrive. `key` says who sends it, such as a task's name.

        The same key and manifest give what has come so far, after a restart too: then what is on the disk is hashed
        again, which takes a second for each GB or two. Another manifest begins anew. WireError for a manifest that
        contradicts itself; ConflictError while another one under this key is being made durable.
        """
        return self._arrivals.incoming(key, manifest, settle=partial(settle, final=self.path(blob_id(manifest))))

    def put_bytes(self, data: bytes, *, coding: str = "") -> Manifest:
        """Makes bytes a blob; its manifest when it is durable."""
        manifest = manifest_of(data, coding=coding)
        if not self.has(blob_id(manifest)):
            with self.scratch() as path, told("write a blob"):
                path.write_bytes(data)
                settle(path, self.path(blob_id(manifest)))
        return manifest

    def put_file(self, path: Path, *, coding: str = "") -> Manifest:
        """Makes a copy of a file a blob; its manifest when it is durable."""
        with self.scratch() as copy:
            with told("copy a file into a blob"):
                shutil.copyfile(path, copy)
            return self.take_file(copy, coding=coding)

    def take_file(self, path: Path, *, coding: str = "") -> Manifest:
        """Makes a file of this disk a blob, as one written in `scratch`: it is moved, not copied."""
        with told("make a file a blob"):
            manifest = manifest_of(path, coding=coding)
            settle(path, self.path(blob_id(manifest)))
        return manifest

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty file to write a blob into; gone afterwards, unless `take_file` took it."""
        return self._arrivals.scratch()

    def sweep(self, *, older_s: float) -> int:
        """Removes what arrived in part and had nothing written to it for so long; how many files that were."""
        return self._arrivals.sweep(older_s=older_s)


def place_of(blob: str) -> str:
    """Where a blob is below its folder or prefix; StoreError for what is no blob's id.

    >>> place_of("ab" * 32)[:10]
    'ab/abababa'
    """
    if not _ID.fullmatch(blob):
        raise StoreError("a blob's id is 64 hexadecimal digits")
    return f"{blob[:2]}/{blob}.blob"
