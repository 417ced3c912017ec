"""Processes that belong to another end with it, and tell it how they failed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from shoal.demos.processes import Processes
from shoal.errors import RunError

CHILD = "tests.demos.child"
PARENT = """
import sys
from pathlib import Path
from shoal.demos.processes import Processes
with Processes({}) as processes:
    processes.start("one", "tests.demos.child", "wait", sys.argv[1], log=Path(sys.argv[2]))
    processes.next(within_s=30)
    print("ready", flush=True)
    sys.stdin.read()
"""


def gone(path):
    for _ in range(400):
        if not path.exists():
            return True
        time.sleep(0.05)
    return False


def test_a_child_that_may_be_killed_is_told_of_and_any_other_end_is_an_error(tmp_path):
    with Processes({}) as processes:
        options = {"log": tmp_path / "log", "mortal": {}}
        processes.start("one", CHILD, "power cut", "", **options)
        said = [processes.next(within_s=30) for _ in range(2)]
        assert said == [{"first": ""}, {"event": "ended", "name": "one"}]
        processes.start("one", CHILD, "fail", "", **options)
        with pytest.raises(RunError, match="one ended with status 2"):
            for _ in range(2):
                processes.next(within_s=30)


def test_a_child_gets_a_secret_and_ends_at_the_end(tmp_path):
    with Processes({}) as processes:
        processes.start("one", CHILD, "wait", str(tmp_path / "here"), log=tmp_path / "log", secret="a word")
        assert processes.next(within_s=30) == {"first": "a word"}
        while not (tmp_path / "here").exists():
            time.sleep(0.01)
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [("fail", "one ended with status 2. Its last lines:\na line before\nshoal: the disk is full"),
     ("crash", "one ended with status 1(.|\n)*ValueError: of nobody's making")],
)  # fmt: skip
def test_a_child_that_fails_is_told_with_its_last_lines(tmp_path, what, message):
    with Processes({}) as processes:
        processes.start("one", CHILD, what, "", log=tmp_path / "log")
        assert processes.next(within_s=30) == {"first": ""}
        with pytest.raises(RunError, match=message):
            processes.next(within_s=30)


def test_silence_is_an_error_after_a_while(tmp_path):
    with Processes({}) as processes:
        processes.start("one", CHILD, "wait", str(tmp_path / "here"), log=tmp_path / "log")
        processes.next(within_s=30)
        with pytest.raises(RunError, match=r"nothing happened in 0\.3 s; what was said last: one: nothing"):
            processes.next(within_s=0.3)


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    here = tmp_path / "here"
    arguments = [sys.executable, "-c", PARENT, str(here), str(tmp_path / "log")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "ready\n"
        while not here.exists():
            time.sleep(0.01)
        parent.kill()
    assert gone(here)
