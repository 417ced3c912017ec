"""Making a file durable under its name: its bytes first, then the name."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from shoal.errors import StoreError
from shoal.store.faults import point


def settle(temporary: Path, final: Path) -> None:
    """Moves a file to its name. When this returns, a power cut takes neither; before, it leaves no half of it.

    OSError if the disk could not do it.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    point("blob-before")
    if not final.parent.is_dir():
        final.parent.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(final.parent.parent)
    os.replace(temporary, final)
    _sync_folder(final.parent)
    point("blob-after")


def create(path: Path) -> None:
    """Makes an empty file that only this user reads, if it is not there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


@contextmanager
def told(doing: str) -> Generator[None]:
    """Turns an OSError within it into a StoreError that says what was being done."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            why = "there is no room for it on the disk. Make room, and try again"
        elif isinstance(error, FileNotFoundError):
            why = "it is not there"
        else:
            why = f"the system says {errno.errorcode.get(error.errno or 0, type(error).__name__)}"
        raise StoreError(f"could not {doing}: {why}") from error


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders, and keeps their changes in a journal
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
