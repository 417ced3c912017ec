"""Points at which a test can kill the process, as a power cut would."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

VARIABLE = "SHOAL_CRASH_AT"
"""Names the point: "commit-before" the first time that it is passed, "commit-before:3" the third."""

_passed: Counter[str] = Counter()
_lock = threading.Lock()


def point(name: str) -> None:
    """Does nothing, unless the environment asks for the process's end at this point: then nothing after it is done."""
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return
    wanted, _, time = asked.partition(":")
    if wanted != name:
        return
    with _lock:
        _passed[name] += 1
        if _passed[name] == int(time or 1):
            os.kill(os.getpid(), signal.SIGKILL)
