"""How a server's process asks for its memory."""

from __future__ import annotations

import ctypes
import sys

LARGE_BYTES = 1024 * 1024
_FREE_BYTES = 8 * LARGE_BYTES
_ARENAS = 2
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # glibc's numbers for mallopt


def give_back_what_is_large() -> None:
    """Lets every array of a megabyte or more go back to the system when it is freed, for the rest of the process.

    By itself glibc learns from the first large array that is freed to keep all that follow, for each thread apart, and
    a server of a large model then holds several times what it uses. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, LARGE_BYTES)
        adjust(_TRIM_THRESHOLD, _FREE_BYTES)  # what is small is asked for again at once: pages are dear
        adjust(_ARENA_MAX, _ARENAS)
