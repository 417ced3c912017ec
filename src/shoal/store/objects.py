"""Blobs as objects of a service that speaks S3. They arrive on this disk, and are there when they are whole there.

One server owns a prefix. So what it put there or saw there it need not ask for again, and what it deletes can wait for
a thread: whoever asks for that blob meanwhile waits for it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from shoal.errors import StoreError
from shoal.store.arrivals import Arrivals
from shoal.store.blobs import place_of
from shoal.store.durable import told
from shoal.store.faults import point
from shoal.store.incoming import Incoming
from shoal.store.object_file import ObjectFile
from shoal.store.s3 import S3
from shoal.wire.blobs import blob_id, manifest_of
from shoal.wire.messages import Manifest

_PLACE = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})\.blob")
_OWNER = "owner"
_log = logging.getLogger("shoal.server.store")


class ObjectBlobs:
    """Blobs under a prefix of a bucket: `PREFIX/ab/abcd....blob`, as in a folder. As `BlobStore`."""

    at_once = 16

    def __init__(
        self, bucket: str, prefix: str, *, folder: Path, endpoint_url: str | None = None, owner: str = ""
    ) -> None:
        self._s3 = S3(bucket, prefix, endpoint_url=endpoint_url)
        self._folder, self._arrivals = folder, Arrivals(folder / "incoming")
        self._lock = threading.Lock()
        self._known: dict[str, int] = {}
        self._going: dict[str, Future[None]] = {}
        self._deletions = 0
        self._deleter = ThreadPoolExecutor(4, "shoal blobs")
        self._own(owner)

    @property
    def folder(self) -> Path:
        """Where on this disk blobs arrive, and what is made of them may lie."""
        return self._folder

    def has(self, blob: str) -> bool:
        """True for a blob that is there, whole."""
        return self._size(blob) is not None

    def size(self, blob: str) -> int:
        """How many bytes a blob has."""
        size = self._size(blob)
        if size is None:
            raise StoreError(f"could not open the blob {blob[:12]}: it is not there")
        return size

    def open(self, blob: str) -> BinaryIO:
        """A blob for reading, from its beginning or from where one seeks, in as much memory as one asks for."""
        return ObjectFile.buffered(partial(self._get, blob), size=self.size(blob))

    def read(self, blob: str, *, offset: int, length: int) -> bytes:
        """A range of a blob's bytes: fewer at its end."""
        with self.open(blob) as file:
            file.seek(offset)
            return file.read(length)

    def incoming(self, key: str, manifest: Manifest) -> Incoming:
        """Where the parts of a blob arrive: on this disk, until it is whole. As `BlobStore.incoming`."""
        return self._arrivals.incoming(key, manifest, settle=partial(self._settle, blob=blob_id(manifest)))

    def put_bytes(self, data: bytes) -> Manifest:
        """Makes bytes a blob; its manifest when it is durable."""
        manifest = manifest_of(data)
        if not self.has(blob_id(manifest)):
            with self.scratch() as path, told("write a blob"):
                path.write_bytes(data)
                self._settle(path, blob=blob_id(manifest))
        return manifest

    def delete(self, blob: str) -> None:
        """Removes a blob, if it is there: soon, and before anything else that is asked of it. A later `ids` has those
        that could not be removed."""
        place = place_of(blob)
        with self._lock:
            self._known.pop(blob, None)
            self._deletions += 1
            if blob not in self._going:
                self._going[blob] = self._deleter.submit(self._remove, blob, place)

    def ids(self) -> Iterator[str]:
        """The blobs that are there, but for those that are being removed."""
        for place in self._s3.places():
            match = _PLACE.fullmatch(place)
            if match is not None and match[2] not in self._going:
                yield match[2]

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty file of this disk; gone afterwards."""
        return self._arrivals.scratch()

    def sweep(self, *, older_s: float) -> int:
        """Removes what arrived in part, or was sent on in part, and had nothing written to it for so long."""
        return self._arrivals.sweep(older_s=older_s) + self._s3.end_uploads(before=time.time() - older_s)

    def _size(self, blob: str) -> int | None:
        place = place_of(blob)
        self._settled(blob)
        with self._lock:
            known, deletions = self._known.get(blob), self._deletions
        if known is not None:
            return known
        size = self._s3.size(place)
        with self._lock:
            if size is not None and deletions == self._deletions:
                self._known[blob] = size
        return size

    def _get(self, blob: str, start: int, length: int) -> Any:
        body = self._s3.get(place_of(blob), start=start, length=length)
        if body is None:
            with self._lock:
                self._known.pop(blob, None)
            raise StoreError(f"could not read the blob {blob[:12]}: it is not there")
        return body

    def _settle(self, path: Path, *, blob: str) -> None:
        self._settled(blob)
        point("blob-before")
        size = self._s3.put(place_of(blob), path)
        point("blob-after")
        with self._lock:
            self._known[blob] = size

    def _settled(self, blob: str) -> None:
        """Waits until a blob that is being removed is removed: else what is put there now would go with it."""
        with self._lock:
            going = self._going.get(blob)
        if going is not None:
            going.result()

    def _remove(self, blob: str, place: str) -> None:
        try:
            self._s3.delete(place)
        except StoreError as error:
            _log.warning("a blob is left to the next sweep: %s", error)
        finally:
            with self._lock:
                del self._going[blob]

    def _own(self, owner: str) -> None:
        """Takes the prefix for this server; so whatever is wrong with the address is said now."""
        said = self._s3.read(_OWNER)
        if said is None:
            self._s3.write(_OWNER, owner.encode())
        elif said != owner.encode():
            raise StoreError(
                f"the blobs at {self._s3.name} are another server's, and each deletes what it does not need: name "
                "another prefix"
            )
