"""A PostgreSQL of the tests' own, started from the binaries that the machine has."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

GIVEN = "SHOAL_TEST_POSTGRES"
"""Names a database to use instead, where tests may make and drop schemas; what restarts one is then skipped."""


def binaries() -> Path | None:
    """Where PostgreSQL's programs are, if they are on this machine."""
    on_path = shutil.which("initdb")
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = Path(on_path).resolve() if on_path else debian[-1] if debian else None
    return found.parent if found else None


class Postgres:
    """A cluster in a folder, reached by a socket in that folder."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder, self._programs = folder, programs
        self._user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-D", self._data, "-U", "shoal", "--auth=trust", "--no-sync", "--encoding=UTF8")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Starts it, and waits until it answers. Processes are killed here, not machines: it need not sync."""
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=40 -c shared_buffers=16MB"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stops it; "immediate" is as hard as a kill."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def url(self, *, host: Path | None = None) -> str:
        """Its address, or the same through another socket's folder."""
        return f"postgresql://shoal@/postgres?host={quote(str(host or self.folder), safe='')}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments], user=self._user, cwd=self.folder, check=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@contextmanager
def running() -> Iterator[Postgres]:
    """A PostgreSQL that runs, and is gone afterwards."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="shoal-pg-"))  # a socket's path must be short
    try:
        postgres = Postgres(folder, programs)
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
