"""Connections that are used by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class _Closes(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closes)


class Pool(Generic[C]):
    """Up to `most` connections, opened when they are needed and kept. When one failed, it and the idle are closed."""

    def __init__(self, opened: Callable[[], C], *, most: int) -> None:
        self._opened = opened
        self._places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[C] = []
        self._closed = False

    @contextmanager
    def taken(self) -> Generator[C]:
        """A connection for this thread alone; waits for one if all are taken."""
        with self._places:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            connection = self._opened() if connection is None else connection
            try:
                yield connection
            except BaseException:
                connection.close()
                self._close_idle()  # what ended this one, such as a restart, ended those too
                raise
            with self._lock:
                if not self._closed:
                    self._idle.append(connection)
                    return
            connection.close()

    def close(self) -> None:
        """Closes what is idle; what is taken is closed when it comes back."""
        with self._lock:
            self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class Alone(Generic[C]):
    """One connection, taken in turn."""

    def __init__(self, connection: C) -> None:
        self._connection, self._lock = connection, threading.Lock()

    @contextmanager
    def taken(self) -> Generator[C]:
        """The connection, when nobody else has it."""
        with self._lock:
            yield self._connection

    def close(self) -> None:
        """Closes the connection, when nobody has it."""
        with self._lock:
            self._connection.close()
