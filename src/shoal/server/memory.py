"""How a server's process asks for its memory."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # of glibc's mallopt
LARGE_BYTES = 1024 * 1024


def give_back_what_is_large() -> None:
    """Lets every array of a megabyte or more go back to the system when it is freed, for the rest of the process.

    By itself glibc learns from the first large array that is freed to keep all that follow, in each thread apart, and
    a server of a large model then holds several times what it uses. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, LARGE_BYTES)
        adjust(_TRIM_THRESHOLD, LARGE_BYTES)
