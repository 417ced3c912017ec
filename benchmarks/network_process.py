"""A server in a process of its own, and what the system says of that process: its CPU time and its memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from benchmarks.network_fleet import Road
from benchmarks.network_memory import peak_mb

SERVER, BARE, LARGE = "benchmarks.network_server", "benchmarks.network_bare", "benchmarks.network_large"
_TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """`python -m MODULE FOLDER SETTINGS`, for as long as a `with` lasts. Its first line is what it says of itself."""

    def __init__(self, module: str, folder: Path, **settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._began = time.monotonic()
        self._errors = (folder / f"{module.rpartition('.')[2]}.err").open("ab")
        command = [sys.executable, "-m", module, str(folder), json.dumps(settings)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise RuntimeError(Path(self._errors.name).read_text()[-3000:])
        self.said: dict[str, Any] = json.loads(line)

    def road(self) -> Road:
        """A connection to it."""
        return Road(self.said["url"], self.said["authority"])

    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._began

    @property
    def resting_mb(self) -> float:
        """The most memory that it held before its first line."""
        return self.said["resident_mb"]

    def cpu(self) -> float:
        """Seconds of CPU that it has used, in the system too."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def idle(self) -> float:
        """Waits until it does nothing any more; the seconds of CPU that it has used then."""
        before, quiet = self.cpu(), 0
        while quiet < 3:
            time.sleep(0.1)
            now = self.cpu()
            quiet = quiet + 1 if now - before < 0.02 else 0
            before = now
        return before

    def most_mb(self) -> float:
        """The most memory that it ever held."""
        return peak_mb(self._process.pid)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()
