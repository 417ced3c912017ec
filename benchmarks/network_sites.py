"""Sites that talk to a server with the agent's own connection and transfers, and whose training takes no time."""

from __future__ import annotations

import heapq
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.network_fleet import NAME, Road, Site, client_id, key_of
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
    return statistics.median(after - before for before, after in zip(times, times[1:], strict=False))


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


def paced(road: Road, sites: Sequence[Site], waits: Sequence[float], *, seconds: float) -> tuple[float, int]:
    """Lets sites come after the waits that the server gave them, each with a new connection, as after minutes of rest.

    How long that took, and how many came. What is played is a stretch in the middle, not the minutes before it.
    """
    middle = statistics.median(waits)
    turns = [(wait - middle, number) for number, wait in enumerate(waits) if wait >= middle]
    heapq.heapify(turns)
    began, came = time.perf_counter(), 0
    while turns and turns[0][0] <= seconds:
        at, number = heapq.heappop(turns)
        time.sleep(max(0.0, began + at - time.perf_counter()))
        road.anew()
        heapq.heappush(turns, (at + sites[number].check_in(road).wait_s, number))
        came += 1
    time.sleep(max(0.0, began + seconds - time.perf_counter()))
    return time.perf_counter() - began, came
