"""A service of the tests' own that speaks S3, in a process: what is in it is gone with it."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What boto3 finds in the environment; the service takes any."""
NUMBERS = itertools.count()


class Service:
    """Where it answers, and what is in it."""

    def __init__(self, port: int, pid: int) -> None:
        self.pid = pid
        self.endpoint = f"http://127.0.0.1:{port}"
        self.client = importlib.import_module("boto3").client(
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )  # fmt: skip

    def bucket(self) -> str:
        """A new bucket's name."""
        name = f"shoal-{os.getpid()}-{next(NUMBERS)}"
        self.client.create_bucket(Bucket=name)
        return name

    def url(self, bucket: str, prefix: str = "here/blobs") -> str:
        """The place of blobs in a bucket."""
        return f"s3://{bucket}/{prefix}?endpoint_url={self.endpoint}"

    def keys(self, bucket: str) -> set[str]:
        """The objects in a bucket."""
        return {found["Key"] for found in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())}


@contextmanager
def running() -> Iterator[Service]:
    """The service, as long as it is needed; the test is skipped without it."""
    if not all(map(importlib.util.find_spec, ("boto3", "moto", "flask"))):
        pytest.skip("needs boto3 and moto's server: run  pip install boto3 'moto[server]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, port)
        yield Service(port, process.pid)
    finally:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, "moto's server ended at once"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("moto's server does not answer")
