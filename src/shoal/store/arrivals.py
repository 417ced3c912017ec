"""What is on its way to be a blob, of whatever kind: a folder of this disk with uploads, and files that are written."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from shoal.errors import ConflictError, StoreError
from shoal.store.durable import create, told
from shoal.store.incoming import Incoming
from shoal.wire.messages import Manifest

_KEY = re.compile("[0-9a-z-]{1,64}")


class Arrivals:
    """The folder, for one process at a time: `KEY.part` for uploads, others for what this process writes.

    Only this user can read it. Methods raise StoreError where the disk cannot do what was asked.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._arriving: WeakValueDictionary[str, Incoming] = WeakValueDictionary()
        self._lock = threading.Lock()
        with told(f"make a folder for blobs at {folder.parent}"):
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)

    def incoming(self, key: str, manifest: Manifest, *, settle: Callable[[Path], None]) -> Incoming:
        """Where the parts of a blob arrive; `settle` takes its file when it is whole. As `BlobStore.incoming`."""
        if not _KEY.fullmatch(key):
            raise StoreError("the key of an upload is made of up to 64 digits, small letters and hyphens")
        with self._lock:
            known = self._arriving.get(key)
            if known is not None and known.open and known.manifest == manifest:
                return known
            if known is not None:
                known.abandon()
                if known.settling:
                    raise ConflictError("what came before under this key is being made durable: ask again")
            arriving = Incoming(self._folder / f"{key}.part", manifest, settle=settle)
            self._arriving[key] = arriving
            return arriving

    @contextmanager
    def scratch(self) -> Generator[Path]:
        """An empty file; gone afterwards, if it was not moved."""
        path = self._folder / f"{secrets.token_hex(8)}.tmp"
        with told("make a temporary file"):
            create(path)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def sweep(self, *, older_s: float) -> int:
        """Removes what arrived in part and had nothing written to it for so long; how many files that were."""
        removed, before = 0, time.time() - older_s
        for path in list(self._folder.iterdir()):
            with self._lock, told("remove what arrived in part"):
                removed += self._remove_older(path, before)
        return removed

    def free_bytes(self) -> int:
        """How much room there is on the disk."""
        with told("ask how much room there is"):
            return shutil.disk_usage(self._folder).free

    def _remove_older(self, path: Path, before: float) -> bool:
        try:
            if path.stat().st_mtime >= before:
                return False
        except FileNotFoundError:  # it became whole meanwhile
            return False
        known = self._arriving.get(path.stem) if path.suffix == ".part" else None
        if known is not None:
            if known.settling:
                return False
            known.abandon()
        path.unlink(missing_ok=True)
        return True
