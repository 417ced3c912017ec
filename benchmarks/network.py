"""The network on loopback, over TLS: what a server costs beside the least that any server would cost.

Servers run in processes of their own; Shoal's and the bare one take turns, a block each, and a figure is the median
over the blocks. CPU time and memory are what the system says of the server's process.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.network_calls import check_ins, polling
from benchmarks.network_fleet import Road, Site, gathered, in_order, payloads, plain
from benchmarks.network_process import BARE, LARGE, SERVER, Process
from benchmarks.network_sites import round_seconds
from benchmarks.report import Report
from shoal.wire.messages import Task

UPLOAD = 1_700_000
"""Numbers in an upload of 6.8 MB."""
MEGABYTE = 250_000
MEMORY_MB, LARGE_MB = 300, 500
"""The most memory of a server, and of both sides of a transfer of 2 GB."""


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows."""
    parts: dict[str, Callable[[Report, Path, bool], None]] = {
        "upload of 6.8 MB": uploads,
        "check-in": check_ins,
        "10,000 clients polling": polling,
        "round latency, 4 sites, 1 MB": latency,
        "round of 1,000 clients, 1 MB each": crowds,
        "restart with 1,000 updates": restart,
        "model of 2 GB": large,
    }
    for name, part in parts.items():
        if only in name:
            with tempfile.TemporaryDirectory(prefix="shoal-benchmark-") as folder:
                part(report, Path(folder), quick)


def uploads(report: Report, folder: Path, quick: bool) -> None:
    """CPU seconds of the server for an update, from its offer until it is durable, checked, counted and in the sum."""
    blocks, each = (2, 4) if quick else (7, 8)
    with (
        Process(SERVER, folder, clients=each + 1, numbers=UPLOAD, cohort=each + 1) as server,
        Process(BARE, folder / "bare", answer_bytes=0) as bare,
        server.road() as road,
        bare.road() as bare_road,
    ):
        payload, ours, others, ends = payloads(UPLOAD), list[float](), list[float](), list[float]()
        tasks = gathered(road, range(each + 1))
        for block in range(blocks):
            *most, last = tasks
            before = server.idle()
            for number, (site, task) in enumerate(most):
                _count(road, site, task, payload(100 * block + number))
            counted = server.idle()
            _count(road, *last, payload(100 * block + 99))
            ends.append(server.idle() - counted)
            ours.append((counted - before) / each)
            before = bare.idle()
            for number in range(each):
                bare_road.ask(plain("PUT", "/hash", payload(number)))
            others.append((bare.idle() - before) / each)
            tasks = in_order(road, [site for site, _ in tasks])
        cpu, least = statistics.median(ours), statistics.median(others)
        report.add("upload of 6.8 MB: server CPU beside SHA-256", cpu, "s", reference=least, bound=1.5)
        report.add("upload of 6.8 MB: the last, and the next model", statistics.median(ends), "s")
        report.add("upload of 6.8 MB: server before its port opens", server.resting_mb, "MB")
        report.add(f"upload of 6.8 MB: server, {each + 1} clients a round", server.most_mb(), "MB", bound=MEMORY_MB)


def latency(report: Report, folder: Path, quick: bool) -> None:
    """From the first task of a round to the first of the next: four sites, whose training takes no time."""
    with Process(SERVER, folder, clients=4, numbers=MEGABYTE, cohort=4) as server:
        rounds, payload = 8 if quick else 40, payloads(MEGABYTE)
        seconds = round_seconds(server.said, folder / "sites", sites=4, rounds=rounds, payload=payload)
        report.add("round latency, 4 sites, 1 MB", seconds * 1e3, "ms", bound=150)


def crowds(report: Report, folder: Path, quick: bool) -> None:
    """What a server holds, and its CPU for an update, in a round of a thousand clients beside one of ten."""
    few, many = 10, 100 if quick else 1000
    payload, mb, cpu = payloads(MEGABYTE), dict[int, float](), dict[int, float]()
    for clients in (few, many):
        place = folder / str(clients)
        with Process(SERVER, place, clients=clients, numbers=MEGABYTE, cohort=clients) as server, server.road() as road:
            tasks = gathered(road, range(clients))
            before = server.idle()
            for number, (site, task) in enumerate(tasks):
                _count(road, site, task, payload(number))
            cpu[clients] = (server.idle() - before) / clients
            mb[clients] = server.most_mb()
    name = f"round of {many:,} clients, 1 MB each"
    report.add(f"{name}: server", mb[many], "MB", bound=MEMORY_MB)
    report.add(f"{name}: server beside {few} clients", mb[many], "MB", reference=mb[few], bound=1.1)
    report.add(f"{name}: CPU an update beside {few} clients", cpu[many] * 1e3, "ms", reference=cpu[few] * 1e3)


def restart(report: Report, folder: Path, quick: bool) -> None:
    """From the start of a server that was killed with a thousand updates of an open round to the round's end.

    The round ends when the last update comes after the restart; it comes at once.
    """
    updates = 100 if quick else 1000
    settings = {"clients": updates + 1, "numbers": MEGABYTE, "cohort": updates + 1}
    payload = payloads(MEGABYTE)
    with Process(SERVER, folder, **settings) as server, server.road() as road:
        *most, (late, _) = gathered(road, range(updates + 1))
        for number, (site, task) in enumerate(most):
            _count(road, site, task, payload(number))
        server.kill()
    with Process(SERVER, folder, **settings) as server, server.road() as road:
        road.ask(plain("GET", "/readyz"))
        ready_s = server.seconds()
        site = Site.hello(road, int(late.client.rpartition("-")[2]))
        site.check_in(road)
        _count(road, site, site.task(road), payload(updates))
        while not _closed_rounds(folder):
            time.sleep(0.02)
        report.add(f"restart with {updates:,} updates: ready", ready_s, "s")
        report.add(f"restart with {updates:,} updates: round closed", server.seconds(), "s", bound=10)


def _closed_rounds(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder / 'store.sqlite'}?mode=ro", uri=True)) as store:
        return store.execute("SELECT COUNT(*) FROM rounds WHERE status = 'closed'").fetchone()[0]


def large(report: Report, folder: Path, quick: bool) -> None:
    """A model of 2 GB, down to a client and up again, checked and summed: the most memory on either side."""
    numbers = 50_000_000 if quick else 500_000_000
    name = f"model of {numbers * 4 / 1e9:g} GB"
    with Process(LARGE, folder, numbers=numbers) as server:
        said = {key: server.said[key] for key in ("url", "authority")}
        with Process(LARGE, folder / "site", numbers=numbers, **said) as site:
            report.add(f"{name}: download", site.said["down_s"], "s")
            report.add(f"{name}: upload, check and sum", site.said["up_s"], "s")
            report.add(f"{name}: client", site.resting_mb, "MB", bound=LARGE_MB)
            report.add(f"{name}: server", server.most_mb(), "MB", bound=LARGE_MB)


def _count(road: Road, site: Site, task: Task, payload: bytes) -> None:
    verdict = site.upload(road, task, payload)
    if verdict.verdict != "counted":
        raise RuntimeError(f"{task.task}: {verdict}")
