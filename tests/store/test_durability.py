"""What is told to be durable is, whatever ends the process; and no transaction is there in part."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

import tests
from shoal.store.faults import VARIABLE
from shoal.store.store import open_store

COMMAND = [sys.executable, "-m", "tests.store.writes_until_killed"]
FOLDER = Path(tests.__file__).parent.parent


def told_until_killed(url: str, *, crash: str | None = None, lines: int = 10**6) -> list[int]:
    """What a writing process said before it died, at a point of its own or after so many lines."""
    environment = os.environ | ({VARIABLE: crash} if crash else {})
    with subprocess.Popen([*COMMAND, url], stdout=subprocess.PIPE, text=True, cwd=FOLDER, env=environment) as process:
        assert process.stdout is not None
        told = [int(line) for line in islice(process.stdout, lines)]
        if crash is None:
            process.kill()
        told += [int(line) for line in process.stdout]
    assert process.returncode == -signal.SIGKILL
    return told


def whole_pairs(url: str) -> int:
    """How many transactions are in the store: the first ones that were asked for, in order, and each whole."""
    store = open_store(url)
    actions = [row["action"] for row in store.read("audit", after=0, limit=10**6)]
    store.close()
    pairs = len(actions) // 2
    assert actions == [text for n in range(pairs) for text in (f"{n}", f"{n}, the same transaction")]
    return pairs


@pytest.mark.parametrize("crash", ["commit-before", "commit-before:4", "commit-after", "commit-after:4"])
def test_a_kill_at_a_commit_loses_nothing_that_was_told(lasting_url: str, crash: str):
    told = told_until_killed(lasting_url, crash=crash)
    pairs = whole_pairs(lasting_url)
    assert told == list(range(len(told)))
    assert len(told) <= pairs
    if crash == "commit-before":
        assert pairs == 0
    if crash == "commit-after":
        assert pairs > len(told) == 0


def test_kills_at_any_moment_lose_nothing_and_the_next_server_goes_on(lasting_url: str):
    pairs = 0
    for lines in (1, 40, 300):
        told = told_until_killed(lasting_url, lines=lines)
        assert told == list(range(pairs, pairs + len(told)))  # it went on where the store ended
        assert whole_pairs(lasting_url) >= pairs + len(told) > pairs
        pairs = whole_pairs(lasting_url)
