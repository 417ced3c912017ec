"""A proxy for TCP that spoils connections: it cuts each after some bytes of its own, and delays some of them."""

from __future__ import annotations

import contextlib
import math
import random
import socket
import threading
import time
from collections import Counter

CUT_FROM, CUT_TO = 500, 2_000_000
"""Each connection is cut after so many bytes of one direction: few or many alike."""


class Proxy:
    """Listens on `port` for a server on another one; TLS passes through it. `fates` counts how connections ended."""

    def __init__(self, target: int, seed: int) -> None:
        self._target, self._random = target, random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.fates: Counter[str] = Counter()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cuts every connection now."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            near.close()
            return
        with self._lock:
            self._open |= {near, far}
            left = math.exp(self._random.uniform(math.log(CUT_FROM), math.log(CUT_TO)))
            upward = self._random.random() < 0.5
            delay_s = self._random.choice((0.0, 0.0, 0.01, 0.05))
        limits = (left, math.inf) if upward else (math.inf, left)
        ways = [
            threading.Thread(target=self._pass, args=(*ends, limit, delay_s), daemon=True)
            for ends, limit in zip(((near, far), (far, near)), limits, strict=True)
        ]
        for way in ways:
            way.start()
        for way in ways:
            way.join()
        with self._lock:
            self._open -= {near, far}
            self.fates["cut on the way up" if upward else "cut on the way down"] += 1
        near.close()
        far.close()

    def _pass(self, source: socket.socket, sink: socket.socket, left: float, delay_s: float) -> None:
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(65536)):
                time.sleep(delay_s)
                sink.sendall(data[: int(min(len(data), left))])
                left -= len(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
