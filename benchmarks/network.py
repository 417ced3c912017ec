"""The network on loopback, over TLS: what a server costs beside the least that any server would cost.

Shoal's server and the bare one run in processes of their own and take turns, a block each; a figure is the median over
the blocks. CPU and memory are what the system says of the server's process.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.network_fleet import Road, Site, gathered, in_order, payloads, plain
from benchmarks.network_process import Process
from benchmarks.network_sites import paced, round_seconds
from benchmarks.report import Report
from shoal.wire.codec import encode
from shoal.wire.messages import CheckIn

UPLOAD = 1_700_000
"""Numbers in an upload of 6.8 MB."""
MEGABYTE = 250_000
SERVER, BARE, LARGE = "benchmarks.network_server", "benchmarks.network_bare", "benchmarks.network_large"


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows."""
    parts: dict[str, Callable[[Report, Path, bool], None]] = {
        "upload of 6.8 MB": uploads,
        "check-in": check_ins,
        "10,000 clients polling": polling,
        "round latency, 4 sites, 1 MB": latency,
        "memory with 1,000 clients": memory,
        "restart with 1,000 updates": restart,
        "model of 2 GB": large,
    }
    for name, part in parts.items():
        if only in name:
            with tempfile.TemporaryDirectory(prefix="shoal-benchmark-") as folder:
                part(report, Path(folder), quick)


def uploads(report: Report, folder: Path, quick: bool) -> None:
    """CPU seconds of the server for an update, from its offer until it is durable and in the sum."""
    blocks, each = (2, 4) if quick else (7, 8)
    (folder / "bare").mkdir()
    with (
        Process(SERVER, folder, clients=each + 1, numbers=UPLOAD, cohort=each + 1) as server,
        Process(BARE, folder / "bare", answer_bytes=80) as bare,
        Road(server.said["url"], server.said["authority"]) as road,
        Road(bare.said["url"], bare.said["authority"]) as bare_road,
    ):
        payload, ours, others, closing = payloads(UPLOAD), list[float](), list[float](), list[float]()
        tasks = gathered(road, range(each + 1))
        for block in range(blocks):
            *most, last = tasks
            before = server.idle()
            for number, (site, task) in enumerate(most):
                _count(site, road, task, payload(100 * block + number))
            counted = server.idle()
            _count(*_of(last, road), payload(100 * block + 99))
            closing.append(server.idle() - counted)
            ours.append((counted - before) / each)
            before = bare.cpu()
            for _ in range(each):
                bare_road.ask(plain("PUT", "/hash", payload(0)))
            others.append((bare.idle() - before) / each)
            tasks = in_order(road, [site for site, _ in tasks])
        report.add(
            "upload of 6.8 MB: server CPU", statistics.median(ours), "s/update",
            reference=statistics.median(others), bound=1.5,
        )  # fmt: skip
        report.add("upload of 6.8 MB: the last one and the next model", statistics.median(closing), "s")
        report.add("upload of 6.8 MB: server's memory, 9 clients", server.most_mb(), "MB", bound=300)
        report.add("server's memory before its port opens", server.resting_mb, "MB")


def _of(last, road):
    site, task = last
    return site, road, task


def _count(site: Site, road: Road, task, payload: bytes) -> None:
    verdict = site.upload(road, task, payload)
    if verdict.verdict != "counted":
        raise RuntimeError(f"{task.task}: {verdict}")


def check_ins(report: Report, folder: Path, quick: bool) -> None:
    """Milliseconds for a check-in that finds no work, with sixteen connections that are kept open."""
    blocks, each, connections = (3, 1000, 16) if quick else (9, 3000, 16)
    (folder / "bare").mkdir()
    with (
        Process(SERVER, folder, clients=connections, numbers=100, cohort=connections + 1) as server,
        Process(BARE, folder / "bare", answer_bytes=34) as bare,
    ):
        roads = [Road(server.said["url"], server.said["authority"]) for _ in range(connections)]
        bare_roads = [Road(bare.said["url"], bare.said["authority"]) for _ in range(connections)]
        sites = [Site.hello(road, number) for number, road in enumerate(roads)]
        for site, road in zip(sites, roads, strict=True):
            site.check_in(road)
        body = encode(CheckIn())
        ours, others, ours_cpu, others_cpu = list[float](), list[float](), list[float](), list[float]()
        size = (
            len(sites[0].request("POST", "/v1/checkin", body)),
            len(roads[0].ask(sites[0].request("POST", "/v1/checkin", body))),
        )
        print(size)
        for _ in range(blocks):
            requests = [[s.request("POST", "/v1/checkin", body) for _ in range(each // connections)] for s in sites]
            before = server.cpu()
            ours.append(_pumped(roads, requests))
            ours_cpu.append((server.cpu() - before) / each)
            padded = plain("POST", "/echo", b"x" * (len(requests[0][0]) - 180))
            before = bare.cpu()
            others.append(_pumped(bare_roads, [[padded] * len(some) for some in requests]))
            others_cpu.append((bare.cpu() - before) / each)
        report.add(
            "check-in: wall time",
            statistics.median(ours) * 1e3,
            "ms",
            reference=statistics.median(others) * 1e3,
            bound=2.5,
        )
        report.add(
            "check-in: server CPU",
            statistics.median(ours_cpu) * 1e3,
            "ms",
            reference=statistics.median(others_cpu) * 1e3,
        )
        for road in (*roads, *bare_roads):
            road.__exit__()


def _pumped(roads: list[Road], requests: list[list[bytes]]) -> float:
    """Seconds for a request while each connection always has one under way."""
    begin = time.perf_counter()
    for road, mine in zip(roads, requests, strict=True):
        road.send(mine[0])
    for turn in range(1, len(requests[0])):
        for road, mine in zip(roads, requests, strict=True):
            status, _ = road.answer()
            assert status == 200
            road.send(mine[turn])
    for road in roads:
        assert road.answer()[0] == 200
    return (time.perf_counter() - begin) / sum(map(len, requests))


def polling(report: Report, folder: Path, quick: bool) -> None:
    """The cores that a server uses while ten thousand clients come when it asked them to, each with a new connection."""
    clients, seconds = (1000, 5.0) if quick else (10_000, 20.0)
    with (
        Process(SERVER, folder, clients=clients, numbers=100, cohort=clients + 1) as server,
        Road(server.said["url"], server.said["authority"]) as road,
    ):
        sites = [Site.hello(road, number) for number in range(clients)]
        for site in sites:
            site.check_in(road)  # which tells of the run
        waits = [site.check_in(road).wait_s for site in sites]
        before = server.idle()
        took, came = paced(road, sites, waits, seconds=seconds)
        cores = (server.cpu() - before) / took
        report.add(f"{clients:,} clients polling: check-ins", came / took, "a second")
        report.add(f"{clients:,} clients polling: server", cores, "cores", bound=1)
        report.add(f"{clients:,} clients polling: memory", server.most_mb(), "MB", bound=300)


def latency(report: Report, folder: Path, quick: bool) -> None:
    """From the first task of a round to the first of the next: four sites, whose training takes no time."""
    with Process(SERVER, folder, clients=4, numbers=MEGABYTE, cohort=4) as server:
        seconds = round_seconds(
            server.said, folder / "sites", sites=4, rounds=8 if quick else 40, payload=payloads(MEGABYTE)
        )
        report.add("round latency, 4 sites, 1 MB", seconds * 1e3, "ms", bound=150)


def large(report: Report, folder: Path, quick: bool) -> None:
    """A model of 2 GB, down to a client and up again, checked and summed: the most memory on either side."""
    numbers = 50_000_000 if quick else 500_000_000
    size = f"model of {numbers * 4 / 1e9:g} GB"
    (folder / "site").mkdir()
    with Process(LARGE, folder, numbers=numbers) as server:
        said = {name: server.said[name] for name in ("url", "authority")}
        with Process(LARGE, folder / "site", numbers=numbers, **said) as site:
            report.add(f"{size}: download", site.said["down_s"], "s")
            report.add(f"{size}: upload, check and sum", site.said["up_s"], "s")
            report.add(f"{size}: client's memory", site.said["resident_mb"], "MB", bound=500)
            report.add(f"{size}: server's memory", server.most_mb(), "MB", bound=500)


def memory(report: Report, folder: Path, quick: bool) -> None:
    """The most memory that the server holds in a round of a thousand clients, each with an update of 1 MB."""
    for clients in (10, 100 if quick else 1000):
        place = folder / str(clients)
        place.mkdir()
        with (
            Process(SERVER, place, clients=clients, numbers=MEGABYTE, cohort=clients) as server,
            Road(server.said["url"], server.said["authority"]) as road,
        ):
            payload = payloads(MEGABYTE)
            begin = time.perf_counter()
            for number, (site, task) in enumerate(gathered(road, range(clients))):
                _count(site, road, task, payload(number))
            server.idle()
            report.add(f"memory with {clients:,} clients, 1 MB each: server", server.most_mb(), "MB", bound=300)
            report.add(f"memory with {clients:,} clients: the round", time.perf_counter() - begin, "s")


def restart(report: Report, folder: Path, quick: bool) -> None:
    """Seconds from the start of a killed server until a round with a thousand updates of 1 MB is closed."""
    clients = 101 if quick else 1001
    settings = {"clients": clients, "numbers": MEGABYTE, "cohort": clients}
    payload = payloads(MEGABYTE)
    with Process(SERVER, folder, **settings) as server, Road(server.said["url"], server.said["authority"]) as road:
        tasks = gathered(road, range(clients))
        for number, (site, task) in enumerate(tasks[:-1]):
            _count(site, road, task, payload(number))
        last = int(tasks[-1][0].client.rpartition("-")[2])
        server.kill()
    with Process(SERVER, folder, **settings) as server:
        ready = server.seconds
        with Road(server.said["url"], server.said["authority"]) as road:
            road.ask(plain("GET", "/readyz"))
            site = Site.hello(road, last)
            site.check_in(road)
            task = site.task(road)
            _count(site, road, task, payload(last))
            while site.check_in(road, wait_s=0.0).tasks:
                pass
            server.idle()
            report.add(f"restart with {clients - 1:,} updates: port open", ready, "s")
            report.add(f"restart with {clients - 1:,} updates: round closed", server.seconds - 0.3, "s", bound=10)
