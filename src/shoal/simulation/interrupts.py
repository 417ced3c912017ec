"""Ctrl-C between two calls, not inside one: what is saved then is whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interrupts(*, deferred: bool) -> Generator[Callable[[], bool]]:
    """Gives a function that tells whether Ctrl-C was pressed since; a second press interrupts at once.

    Where it is not to be deferred, where Python delivers no signals (outside the main thread), or where the
    process ignores it (a shell's job in the background), Ctrl-C stays what it was.
    """
    pressed = threading.Event()
    usual = signal.getsignal(signal.SIGINT)
    here = threading.current_thread() is threading.main_thread()
    if not deferred or not here or usual in (None, signal.SIG_IGN):
        yield pressed.is_set
        return

    def press(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, usual)
        pressed.set()
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"\nshoal: finishing this round, then saving; Ctrl-C again stops at once\n")

    signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, usual)
