"""Blobs as files: each whole under its name, or not there."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from shoal.errors import StoreError
from shoal.store.durable import create, settle, told
from shoal.store.incoming import Incoming
from shoal.wire.blobs import blob_id, manifest_of
from shoal.wire.messages import Manifest

_ID = re.compile("[0-9a-f]{64}")
_KEY = re.compile("[0-9a-z-]{1,64}")


class Blobs:
    """A folder of blobs, for one process at a time: `ab/abcd....blob`, and `incoming/` for what is not whole yet.

    Only this user can read it. Methods raise StoreError where the disk cannot do what was asked.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._incoming = self._folder / "incoming"
        self._arriving: WeakValueDictionary[str, Incoming] = WeakValueDictionary()
        self._lock = threading.Lock()
        with told(f"make a folder for blobs at {self._folder}"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Where the blobs lie."""
        return self._folder

    def path(self, blob: str) -> Path:
        """Where a blob is, or would be."""
        if not _ID.fullmatch(blob):
            raise StoreError("a blob's id is 64 hexadecimal digits")
        return self._folder / blob[:2] / f"{blob}.blob"

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
        with told("ask how much room there is"):
            return shutil.disk_usage(self._folder).free

    def incoming(self, key: str, manifest: Manifest) -> Incoming:
        """Where the parts of a blob arrive. `key` says who sends it, such as a task's name.

        The same key and manifest give what has come so far, after a restart too: then what is on the disk is hashed
        again, which takes a second for each GB or two. Another manifest begins anew. WireError for a manifest that
        contradicts itself.
        """
        if not _KEY.fullmatch(key):
            raise StoreError("the key of an upload is made of up to 64 digits, small letters and hyphens")
        with self._lock:
            known = self._arriving.get(key)
            if known is not None and known.open:
                if known.manifest == manifest:
                    return known
                known.abandon()
            arriving = Incoming(self._incoming / f"{key}.part", self.path(blob_id(manifest)), manifest)
            self._arriving[key] = arriving
            return arriving

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

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """An empty file to write a blob into; gone afterwards, unless `take_file` took it."""
        path = self._incoming / f"{secrets.token_hex(8)}.tmp"
        with told("make a temporary file"):
            create(path)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def sweep(self, *, older_s: float) -> int:
        """Removes what arrived in part and had nothing written to it for so long; how many files that were."""
        removed, before = 0, time.time() - older_s
        for path in list(self._incoming.iterdir()):
            with self._lock, told("remove what arrived in part"):
                removed += self._remove_older(path, before)
        return removed

    def _remove_older(self, path: Path, before: float) -> bool:
        try:
            if path.stat().st_mtime >= before:
                return False
        except FileNotFoundError:  # it became whole meanwhile
            return False
        known = self._arriving.get(path.stem) if path.suffix == ".part" else None
        if known is not None:
            known.abandon()
        path.unlink(missing_ok=True)
        return True
