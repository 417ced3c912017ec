"""Console blocks of a page, run as a reader would run them: servers and agents in the background."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BEGIN = re.compile(r"^(?:(\w+)?\$) (.*)$")


def blocks_of(page):
    """(language, text) of every fenced block."""
    return re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)


def commands_of(block):
    """(machine, command) of a console block; a line that ends with a backslash goes on in the next."""
    for line in block.replace("\\\n", " ").splitlines():
        machine, command = BEGIN.match(line).groups()
        yield machine or "", re.sub(r"\s{2,}#.*$", "", command)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


SQLITE = """#!{python}
import sqlite3, sys
sqlite3.connect(sys.argv[1]).execute(sys.argv[2])
"""


def tools(cache):
    """A folder with the tool sqlite3, for machines on which only Python has it."""
    folder = cache / "tools"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sqlite3").write_text(SQLITE.format(python=sys.executable))
    (folder / "sqlite3").chmod(0o755)
    return folder


class Machine:
    """A folder in which somebody types commands. `cd` goes into a folder for good."""

    def __init__(self, folder, home, cache):
        self.folder, self.background = Path(folder), []
        self.folder.mkdir(parents=True, exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(tools(cache))])
        self.environment = {
            **os.environ, "HOME": str(home), "PATH": path, "XDG_CACHE_HOME": str(cache), "COLUMNS": "160",
            "PYTHONUNBUFFERED": "1",
        }  # fmt: skip

    def run(self, command):
        """What a command prints; AssertionError, with what it said, if it does not end well."""
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return ""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, command, until):
        """Starts a command that does not end, and waits until it says something; what it said."""
        log = self.folder / f"said-{len(self.background)}.txt"
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, stdout=file, stderr=file
            )
        self.background.append((process, log))
        end = time.monotonic() + 90
        while not re.search(until, log.read_text()):
            assert process.poll() is None and time.monotonic() < end, f"$ {command}\n{log.read_text()}"
            time.sleep(0.05)
        return log.read_text()

    def stop(self):
        """Ctrl-C for what runs in the background; AssertionError if it does not end well."""
        for process, _ in reversed(self.background):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            finally:
                process.kill()
        ended = [(process.returncode, log.read_text()) for process, log in self.background]
        self.background.clear()
        assert not any(status for status, _ in ended), ended
