"""Columns that lie in files: read where they are touched, and let go again."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np


def memory_map(column: Any) -> mmap.mmap | None:
    """The memory map that an array lies in, or None."""
    while column is not None and not isinstance(column, mmap.mmap):
        column = getattr(column, "_mmap" if isinstance(column, np.memmap) else "base", None)
    return column


def read_sparsely(column: Any) -> None:
    """Tells the system that of a mapped column rows here and there will be read: pages around them need not be."""
    file = memory_map(column)
    if file is not None and hasattr(mmap, "MADV_RANDOM"):
        file.madvise(mmap.MADV_RANDOM)


def let_go(column: Any) -> None:
    """Tells the system that this process does not need what it has read of a mapped column.

    What was read stays in the system's cache of files, and the process stays small.
    """
    file = memory_map(column)
    if file is not None and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)
