"""A store of blobs: files of a folder, or objects of a service that speaks S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import parse_qsl, urlsplit

from shoal.errors import StoreError
from shoal.store.blobs import Blobs
from shoal.store.incoming import Incoming
from shoal.store.objects import ObjectBlobs
from shoal.wire.messages import Manifest


class BlobStore(Protocol):
    """What a server asks of its blobs. Each is whole under its name, or not there.

    Methods raise StoreError for what could not be done. `has`, `size`, `open`, `read` and `put_bytes` may wait for a
    network, and so may what reads an opened blob, an upload's `commit`, `ids` and `sweep`: an event loop calls them in
    threads, `at_once` of them. `incoming` and `delete` never do.
    """

    at_once: int

    @property
    def folder(self) -> Path:
        """Where on this disk blobs arrive, and what is made of them may lie."""
        ...

    def has(self, blob: str) -> bool:
        """True for a blob that is there, whole."""
        ...

    def size(self, blob: str) -> int:
        """How many bytes a blob has."""
        ...

    def open(self, blob: str) -> BinaryIO:
        """A blob for reading, from its beginning or from where one seeks, in as much memory as one asks for."""
        ...

    def read(self, blob: str, *, offset: int, length: int) -> bytes:
        """A range of a blob's bytes: fewer at its end."""
        ...

    def incoming(self, key: str, manifest: Manifest) -> Incoming:
        """Where the parts of a blob arrive. `key` says who sends it, such as a task's name.

        The same key and manifest give what has come so far, after a restart too. Another manifest begins anew.
        WireError for a manifest that contradicts itself; ConflictError while another one under this key is being made
        durable.
        """
        ...

    def put_bytes(self, data: bytes) -> Manifest:
        """Makes bytes a blob; its manifest when it is durable."""
        ...

    def delete(self, blob: str) -> None:
        """Removes a blob, if it is there. It may take effect later, but before anything else that is asked of it."""
        ...

    def ids(self) -> Iterator[str]:
        """The blobs that are there, so that those that no row names can be removed."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """An empty file of this disk; gone afterwards."""
        ...

    def sweep(self, *, older_s: float) -> int:
        """Removes what arrived in part and had nothing written to it for so long; how much that was."""
        ...


def open_blobs(place: str | Path, *, folder: str | Path | None = None, owner: str = "") -> BlobStore:
    """The blobs in a folder, or at "s3://bucket/prefix", or at "s3://bucket/prefix?endpoint_url=https://host".

    What arrives for S3 is kept in `folder`, on this disk, until it is whole. The prefix is for one server alone:
    `owner` says which, and another's is refused. Credentials are found as boto3 finds them, never in the address.
    StoreError if they cannot be used.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     open_blobs(folder).put_bytes(b"four bytes").size_bytes
    10
    """
    scheme, separator, _ = str(place).partition("://")
    if isinstance(place, Path) or not separator:
        return Blobs(place)
    if scheme != "s3":
        raise StoreError(
            "blobs are kept in a folder or at s3://bucket/prefix?endpoint_url=https://host; this place begins with "
            f"{scheme}://"
        )
    try:
        parts = urlsplit(place)
        asked = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
        endpoint = asked.pop("endpoint_url", None)
        wrong = parts.fragment or asked or not parts.hostname or parts.netloc != parts.hostname
    except ValueError:
        wrong, endpoint, parts = True, None, urlsplit("")
    if wrong or folder is None:
        raise StoreError(
            "blobs at S3 are at s3://bucket/prefix?endpoint_url=https://host, with nothing else in it: credentials are "
            "given as boto3 finds them, such as AWS_ACCESS_KEY_ID. They also need a folder of this disk"
        )
    return ObjectBlobs(parts.netloc, parts.path.strip("/"), folder=Path(folder), endpoint_url=endpoint, owner=owner)
