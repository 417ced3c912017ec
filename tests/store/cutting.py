"""A socket between a store and PostgreSQL that is cut at a commit, before it is sent or before it is answered."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

SOCKET = ".s.PGSQL.5432"


class Cut:
    """Passes bytes from a socket in one folder to that in another. When it is told to, it cuts off one COMMIT."""

    def __init__(self, listener: socket.socket, behind: Path) -> None:
        self._listener, self._behind = listener, behind
        self._cut: Literal["never", "before", "after"] = "never"
        self.cuts = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def at_commit(self, when: Literal["before", "after"]) -> None:
        """The next COMMIT is cut off before PostgreSQL gets it, or after it has done it."""
        self._cut = when

    def refuse(self, folder: Path) -> None:
        """Connections that are there live on; nobody gets another."""
        (folder / SOCKET).unlink()

    def close(self) -> None:
        """Waits until the connections have ended."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._pass, args=(near,)))
            self._threads[-1].start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(str(self._behind / SOCKET))
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = _received(ready)
                    if not data or (ready is near and self._cuts_off(data, far)):
                        return
                    (far if ready is near else near).sendall(data)

    def _cuts_off(self, data: bytes, far: socket.socket) -> bool:
        if self._cut == "never" or b"COMMIT" not in data:
            return False
        when, self._cut = self._cut, "never"
        self.cuts += 1
        if when == "after":
            far.sendall(data)
            _received(far)
        return True


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65536)
    except OSError:
        return b""


@contextmanager
def cut_between(folder: Path, behind: Path) -> Iterator[Cut]:
    """A socket in one folder that leads to the one in another."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()
        cut = Cut(listener, behind)
        try:
            yield cut
        finally:
            cut.close()
