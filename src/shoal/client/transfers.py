"""Blobs to and from the server, a part at a time: what was there before a cut, or a restart, is not sent again."""

from __future__ import annotations

from shoal.client.connection import Connection
from shoal.errors import ServerError, WireError
from shoal.store.blobs import Blobs
from shoal.wire.blobs import blob_id, check_manifest, part_span
from shoal.wire.codec import decode, encode
from shoal.wire.messages import INLINE_BYTES, Manifest, Missing, Result, Upload, Verdict

TRIES = 5
"""How often a part may come damaged, and how often an upload is begun again, before that is an error."""
_BEGUN_AGAIN = frozenset({"not-offered", "incomplete", "conflict", "task-unknown"})
"""A part is refused where its upload is not known any more, or not wanted: the next offer tells which."""


def download(connection: Connection, blobs: Blobs, manifest: Manifest, *, most_bytes: int) -> str:
    """Brings a blob into `blobs`, unless it is there; its id. Holds one part in memory.

    WireError for a manifest that contradicts itself, for a blob larger than `most_bytes`, and for one whose parts keep
    coming damaged.
    """
    check_manifest(manifest, most_bytes=most_bytes)
    blob = blob_id(manifest)
    if blobs.has(blob):
        return blob
    incoming = blobs.incoming(blob, manifest)
    for number in incoming.missing():
        for attempt in range(TRIES):
            try:
                incoming.put(number, _part(connection, blob, manifest, number))
                break
            except WireError:
                if attempt == TRIES - 1:
                    raise
    incoming.commit()
    return blob


def _part(connection: Connection, blob: str, manifest: Manifest, number: int) -> bytes:
    offset, length = part_span(manifest, number)
    alone = len(manifest.parts) == 1
    headers = {} if alone else {"range": f"bytes={offset}-{offset + length - 1}"}
    return connection.call("GET", f"/v1/blobs/{blob}", kind="download", headers=headers, most_bytes=length)


def report(
    connection: Connection, blobs: Blobs, task: str, *, manifest: Manifest, train_s: float, secure: bytes | None = None
) -> Verdict:
    """The server's verdict on a task's result, which is one of `blobs`. It may be asked for again and again.

    A large result is sent in parts, those that the server lacks, one in memory at a time. `secure` is what is said of
    a result that is masked.
    """
    if manifest.size_bytes <= INLINE_BYTES:
        data = blobs.read(blob_id(manifest), offset=0, length=manifest.size_bytes)
        return _reported(connection, task, Result(manifest=manifest, inline=data, train_s=train_s, secure=secure))
    for attempt in range(TRIES):
        try:
            verdict = _upload(connection, blobs, task, manifest)
            result = Result(manifest=manifest, train_s=train_s, secure=secure)
            return verdict or _reported(connection, task, result)
        except ServerError as error:
            if error.code not in _BEGUN_AGAIN or attempt == TRIES - 1:
                raise
    raise AssertionError  # the last turn of the loop returns or raises


def _upload(connection: Connection, blobs: Blobs, task: str, manifest: Manifest) -> Verdict | None:
    """Sends the parts that are missing; a verdict if nothing is wanted."""
    data = connection.call("POST", f"/v1/tasks/{task}/upload", encode(Upload(manifest=manifest)), kind="upload")
    try:
        missing = decode(data, Missing)
    except WireError:
        return decode(data, Verdict)
    blob = blob_id(manifest)
    for number in missing.parts:
        offset, length = part_span(manifest, number)
        part = blobs.read(blob, offset=offset, length=length)
        headers = {"content-type": "application/octet-stream"}
        connection.call("PUT", f"/v1/tasks/{task}/parts/{number}", part, kind="upload", headers=headers)
    return None


def _reported(connection: Connection, task: str, result: Result) -> Verdict:
    return decode(connection.call("POST", f"/v1/tasks/{task}/report", encode(result), kind="report"), Verdict)
