"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def check_place(path: Path) -> None:
    """OSError if no file could be written at the path; makes the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))


def write_whole(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Writes a file; the old one stays until the new one is on the disk. OSError if it cannot be written.

    `mode` is what others may do with the file, less what the process's umask takes away.
    """
    with written(path, mode=mode) as file:
        file.write(data)


@contextmanager
def written(path: Path, *, mode: int = 0o666) -> Generator[IO[bytes]]:
    """A file to write a new one to, piece by piece, as `write_whole` does at once; an error leaves the old one."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
