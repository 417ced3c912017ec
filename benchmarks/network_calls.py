"""Check-ins: how many a server answers, and what ten thousand clients cost that come when they were asked to."""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.network_fleet import Road, Site, plain
from benchmarks.network_process import BARE, SERVER, Process
from benchmarks.report import Report
from shoal.wire.codec import encode
from shoal.wire.messages import CheckIn

CONNECTIONS = 16


def check_ins(report: Report, folder: Path, quick: bool) -> None:
    """The time of a check-in that finds no work, beside an echo's of the same size; both servers are kept busy."""
    blocks, turns = (3, 60) if quick else (9, 180)
    body = encode(CheckIn())
    with ExitStack() as stack:
        server = stack.enter_context(Process(SERVER, folder, clients=CONNECTIONS, numbers=100, cohort=CONNECTIONS + 1))
        roads = [stack.enter_context(server.road()) for _ in range(CONNECTIONS)]
        sites = [Site.hello(road, number) for number, road in enumerate(roads)]
        for site, road in zip(sites, roads, strict=True):
            site.check_in(road)  # which tells of the run
        answer = roads[0].ask(sites[0].request("POST", "/v1/checkin", body))
        bare = stack.enter_context(Process(BARE, folder / "bare", answer_bytes=len(answer)))
        bare_roads = [stack.enter_context(bare.road()) for _ in range(CONNECTIONS)]
        ours, others = list[tuple[float, float]](), list[tuple[float, float]]()
        for _ in range(blocks):
            requests = [[site.request("POST", "/v1/checkin", body) for _ in range(turns)] for site in sites]
            ours.append(_pumped(server, roads, requests))
            alike = [[_echo(len(request)) for request in each] for each in requests]
            others.append(_pumped(bare, bare_roads, alike))
    for name, place, bound in (("time beside an echo", 0, 2.5), ("server CPU beside an echo", 1, None)):
        value, least = (statistics.median(times[place] for times in each) * 1e3 for each in (ours, others))
        report.add(f"check-in: {name}", value, "ms", reference=least, bound=bound)
    report.add("check-ins", 1 / statistics.median(times[0] for times in ours), "a second")


def _echo(size: int) -> bytes:
    return plain("POST", "/echo", b"x" * (size - len(plain("POST", "/echo", b"x" * 100)) + 100))


def _pumped(server: Process, roads: Sequence[Road], requests: Sequence[Sequence[bytes]]) -> tuple[float, float]:
    """Seconds for a request, and of the server's CPU, while each connection always has one under way."""
    before, begin = server.cpu(), time.perf_counter()
    for road, mine in zip(roads, requests, strict=True):
        road.send(mine[0])
    for turn in range(1, len(requests[0])):
        for road, mine in zip(roads, requests, strict=True):
            road.went_well()
            road.send(mine[turn])
    for road in roads:
        road.went_well()
    number = sum(map(len, requests))
    return (time.perf_counter() - begin) / number, (server.cpu() - before) / number


def polling(report: Report, folder: Path, quick: bool) -> None:
    """The cores that a server uses while clients come when it asked them to, each with a new connection."""
    clients, seconds = (1000, 5.0) if quick else (10_000, 20.0)
    with Process(SERVER, folder, clients=clients, numbers=100, cohort=clients + 1) as server, server.road() as road:
        sites = [Site.hello(road, number) for number in range(clients)]
        for site in sites:
            site.check_in(road)  # which tells of the run
        waits = [site.check_in(road).wait_s for site in sites]
        before = server.idle()
        took, came = _paced(road, sites, waits, seconds=seconds)
        cores = (server.cpu() - before) / took
        report.add(f"{clients:,} clients polling: check-ins", came / took, "a second")
        report.add(f"{clients:,} clients polling: server", cores, "cores", bound=1)
        report.add(f"{clients:,} clients polling: server's memory", server.most_mb(), "MB")


def _paced(road: Road, sites: Sequence[Site], waits: Sequence[float], *, seconds: float) -> tuple[float, int]:
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
