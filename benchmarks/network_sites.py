"""Sites that talk to a server with the agent's own connection and transfers, and whose training takes no time."""

from __future__ import annotations

import statistics
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.network_fleet import NAME, client_id, key_of
from shoal.client.connection import Connection
from shoal.client.identity import Identity
from shoal.client.line import Line
from shoal.client.transfers import download, report
from shoal.store.blobs import Blobs
from shoal.wire.messages import CheckIn


def round_seconds(said: dict[str, Any], folder: Path, *, sites: int, rounds: int, payload: Any) -> float:
    """The median time from the first task of a round to the first task of the next."""
    came: dict[int, float] = {}
    threads = [
        threading.Thread(target=_take_part, args=(said, folder / str(n), n, rounds, payload(n), came))
        for n in range(sites)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [came[number] for number in sorted(came)]
    return statistics.median(after - before for before, after in pairwise(times))


def _take_part(
    said: dict[str, Any], folder: Path, number: int, rounds: int, payload: bytes, came: dict[int, float]
) -> None:
    authority, name = Path(said["authority"]).read_text(), client_id(number)
    line = Line(said["url"], authority=authority)
    connection = Connection(line, Identity(said["url"], NAME, name, name, authority), private_key=key_of(name))
    blobs = Blobs(folder)
    result = blobs.put_bytes(payload)
    done = -1
    while done < rounds:
        for task in connection.check_in(CheckIn(wait_s=25.0)).tasks:
            came.setdefault(task.round, time.perf_counter())
            blobs.delete(download(connection, blobs, task.model, most_bytes=task.most_bytes))
            report(connection, blobs, task.task, manifest=result, train_s=0.0)
            done = task.round
    line.close()
