"""What blobs ask of S3: each question by boto3, with its retries and credentials, and each failure with what to do."""

from __future__ import annotations

import ipaddress
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shoal.errors import StoreError
from shoal.extras import needed

_PART = 8 * 1024 * 1024
_CONNECT_S, _READ_S, _TRIES = 5, 30, 4
_CONNECTIONS = 32
_NOT_THERE = ("404", "NoSuchKey", "NotFound")
_WHY = {
    "NoSuchBucket": "there is no such bucket: make it first",
    **dict.fromkeys(
        ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled"),
        "the credentials do not allow it: they must allow to get, put, delete and list there",
    ),
    **dict.fromkeys(
        ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
        "there are no credentials: give them as boto3 finds them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    **dict.fromkeys(
        ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "SSLError"),
        "it does not answer: look at the address, its certificate, and the network",
    ),
}


class S3:
    """The objects under a prefix of a bucket, by their places below it. Threads may use it.

    StoreError for an address that cannot be used: in the clear it must be of this machine.
    """

    def __init__(self, bucket: str, prefix: str, *, endpoint_url: str | None) -> None:
        boto3, botocore = needed("boto3", "s3"), needed("botocore.exceptions", "s3")
        self.name = f"s3://{bucket}/{prefix}"
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._failed = (botocore.BotoCoreError, botocore.ClientError, needed("boto3.exceptions", "s3").Boto3Error)
        self._refused = botocore.ClientError
        self._transfer = needed("boto3.s3.transfer", "s3").TransferConfig(
            multipart_threshold=2 * _PART, multipart_chunksize=_PART, use_threads=False
        )
        config = needed("botocore.config", "s3").Config(
            connect_timeout=_CONNECT_S, read_timeout=_READ_S, max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": _TRIES},
        )  # fmt: skip
        with self._told("use"):
            try:
                self._client = boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
            except ValueError as error:
                raise StoreError("the endpoint_url of S3 is a URL such as https://host:9000") from error
        _check_clear(self._client.meta.endpoint_url)

    def size(self, place: str) -> int | None:
        """How many bytes an object has; None if it is not there."""
        with self._told("look at a blob"):
            answer = self._found(self._client.head_object, place)
        return None if answer is None else answer["ContentLength"]

    def get(self, place: str, *, start: int, length: int) -> Any:
        """A range of an object, to be read; None if the object is not there."""
        with self._told("read a blob"):
            answer = self._found(self._client.get_object, place, Range=f"bytes={start}-{start + length - 1}")
        return None if answer is None else answer["Body"]

    def read(self, place: str) -> bytes | None:
        """A small object; None if it is not there."""
        with self._told("read"):
            answer = self._found(self._client.get_object, place)
            return None if answer is None else answer["Body"].read()

    def write(self, place: str, data: bytes) -> None:
        """Makes a small object."""
        with self._told("write"):
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + place, Body=data)

    def put(self, place: str, path: Path) -> int:
        """Makes a file an object, a part at a time, and there when all of it is; how many bytes that were."""
        with path.open("rb") as file, self._told("write a blob"):
            size = path.stat().st_size
            self._client.upload_fileobj(file, self._bucket, self._prefix + place, Config=self._transfer)
        return size

    def delete(self, place: str) -> None:
        """Removes an object, if it is there."""
        with self._told("remove a blob"):
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + place)

    def places(self) -> Iterator[str]:
        """All objects, by their places."""
        with self._told("list the blobs"):
            for page in self._pages("list_objects_v2"):
                for found in page.get("Contents", ()):
                    yield found["Key"][len(self._prefix) :]

    def end_uploads(self, *, before: float) -> int:
        """Removes the parts of objects that were begun before a time, in seconds since 1970, and never became whole."""
        ended = 0
        with self._told("remove what was uploaded in part"):
            for page in self._pages("list_multipart_uploads"):
                for found in page.get("Uploads", ()):
                    if found["Initiated"].timestamp() < before:
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=found["Key"], UploadId=found["UploadId"]
                        )
                        ended += 1
        return ended

    def _pages(self, question: str) -> Iterator[Any]:
        return self._client.get_paginator(question).paginate(Bucket=self._bucket, Prefix=self._prefix)

    def _found(self, ask: Any, place: str, **asked: str) -> Any:
        try:
            return ask(Bucket=self._bucket, Key=self._prefix + place, **asked)
        except self._refused as error:
            if _code(error) in _NOT_THERE:
                return None
            raise

    @contextmanager
    def _told(self, doing: str) -> Generator[None]:
        """Turns a failure of S3 within it into a StoreError that says what was being done, and what to do."""
        try:
            yield
        except self._failed as error:
            code = _code(error)
            raise StoreError(f"could not {doing} at {self.name}: {_WHY.get(code, f'it says {code}')}") from error


def _code(error: Any) -> str:
    """What went wrong, in a word: S3's, or botocore's."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code") or type(error).__name__)


def _check_clear(url: str) -> None:
    """StoreError for results of clients in the clear, but within this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if parts.scheme != "https" and not here:
        raise StoreError(f"blobs travel to {host} in the clear: give an endpoint_url that begins with https://")
