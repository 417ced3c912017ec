"""Processes that belong to one: they end when it does, and it learns when one of them ends too early."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from shoal.errors import RunError, ShoalError

LINES = 8
"""How many of the last lines of a process that failed are shown."""
ENDS_WITHIN_S = 15.0


@dataclass(frozen=True)
class Child:
    """A process of ours: what it is called, the file in which it says what goes on, and whether it may be killed."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    mortal: bool

    def order_to_end(self) -> None:
        """The end of its input."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def ended(self) -> None:
        """Waits for its end, which comes by force if it has to, and lets go of what it printed."""
        try:
            self.process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


class Processes:
    """Python modules run as processes, for as long as a `with` lasts.

    Each gets a text on its first line of input, and the end of its input is its order to end: that comes, too, when
    this process is killed. What they print as JSON, one object a line, is read by `next`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self._children: list[Child] = []
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def start(
        self, name: str, module: str, *arguments: str, log: Path, secret: str = "",
        mortal: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Starts a module; what it writes to its standard error goes into `log`.

        One that is `mortal`, which adds to its environment, may be killed: `next` gives "ended" with its name then.
        """
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                env={**self._environment, **(mortal or {})},
                start_new_session=True,  # Ctrl-C is for this process, which ends the others
            )  # fmt: skip
        child = Child(name, process, log, mortal is not None)
        self._children.append(child)
        threading.Thread(target=self._listen, args=(child,), daemon=True, name=f"{name} says").start()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it ended already, which `next` tells
            process.stdin.write(f"{secret}\n".encode())
            process.stdin.flush()

    def next(self, *, within_s: float) -> dict[str, Any]:
        """What a process says next; RunError, with its last lines, if one of them ended, or nothing is said."""
        waited_s = 0.0
        while waited_s < within_s:
            with suppress(queue.Empty):
                return self._said.get(timeout=0.2)
            waited_s += 0.2
            self._check()
        told = "; ".join(f"{child.name}: {_last_lines(child.log, 1) or 'nothing'}" for child in self._children)
        raise RunError(f"nothing happened in {within_s:g} s; what was said last: {told}")

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for child in reversed(self._children):
            child.order_to_end()
        for child in reversed(self._children):
            child.ended()

    def _listen(self, child: Child) -> None:
        assert child.process.stdout is not None
        with suppress(ValueError):  # it was closed at the end
            for line in child.process.stdout:
                with suppress(json.JSONDecodeError):
                    self._said.put(json.loads(line))

    def _check(self) -> None:
        for child in list(self._children):
            status = child.process.poll()
            if status is not None and child.mortal and status == -signal.SIGKILL:
                self._children.remove(child)
                child.order_to_end()
                child.ended()
                self._said.put({"event": "ended", "name": child.name})
            elif status is not None:
                raise RunError(f"{child.name} ended with status {status}. Its last lines:\n{_last_lines(child.log)}")


def say(**what: Any) -> None:
    """Tells the process that started this one, in one line of JSON."""
    print(json.dumps(what), flush=True)


def order(end: Callable[[], None]) -> str:
    """The first line of this process's input; `end` is called, in a thread, when that input ends."""
    first = sys.stdin.readline().strip()

    def wait() -> None:
        while sys.stdin.readline():
            pass
        end()

    threading.Thread(target=wait, daemon=True, name="order to end").start()
    return first


def told(main: Callable[[], None]) -> None:
    """Runs a process's program; a mistake becomes one sentence and exit status 2."""
    try:
        main()
    except ShoalError as error:
        print(f"shoal: {error}", file=sys.stderr)
        sys.exit(2)


def _last_lines(path: Path, count: int = LINES) -> str:
    return "\n".join(path.read_text("utf-8", "replace").strip().splitlines()[-count:])
