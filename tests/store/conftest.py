"""Stores of each kind, empty."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from shoal.store.store import Store, open_store
from tests import postgres, s3

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Postgres]:
    """A PostgreSQL that tests may restart."""
    if postgres.binaries() is None:
        pytest.skip("needs PostgreSQL's programs: install them, as .ci/run does")
    with postgres.running() as server:
        yield server


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A schema of its own in a PostgreSQL."""
    server = os.environ.get(postgres.GIVEN) or request.getfixturevalue("cluster").url()
    schema = f"shoal_test_{os.getpid()}_{next(NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield f"{server}{'&' if '?' in server else '?'}options=-csearch_path%3D{schema}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SET client_min_messages = error")
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(params=["sqlite", "memory", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store of each kind is made."""
    match request.param:
        case "sqlite":
            return f"sqlite://{tmp_path}/shoal.db"
        case "memory":
            return "memory:"
        case _:
            return request.getfixturevalue("postgres_url")


@pytest.fixture(params=["sqlite", "postgres"])
def lasting_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store is made that outlives its process."""
    return f"sqlite://{tmp_path}/shoal.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(scope="session")
def service() -> Iterator[s3.Service]:
    """A service that speaks S3."""
    with s3.running() as running:
        yield running


@pytest.fixture
def bucket(service: s3.Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, and the credentials for it."""
    for name, value in s3.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return service.bucket()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A new store of each kind."""
    opened = open_store(url)
    yield opened
    opened.close()
