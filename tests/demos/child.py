"""A process for the tests of processes: says what it was told, and does what its argument says."""

import os
import signal
import sys
import threading
from pathlib import Path

from shoal.demos.processes import order, say, told
from shoal.errors import RunError


def main(what, place):
    ended = threading.Event()
    say(first=order(ended.set))
    if what == "fail":
        print("a line before", file=sys.stderr)
        raise RunError("the disk is full")
    if what == "crash":
        raise ValueError("of nobody's making")
    if what == "power cut":
        os.kill(os.getpid(), signal.SIGKILL)
    Path(place).touch()
    ended.wait()
    Path(place).unlink()


if __name__ == "__main__":
    told(lambda: main(*sys.argv[1:]))
