"""Figures for Prometheus. They count requests, bytes and tasks; they name no client."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from shoal.server.views import RunView
from shoal.store.store import Row, Store, Write

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "shoal_request_seconds", "Time from a request's headers to the end of its answer.", ["route", "status"],
            registry=self.registry, buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30),
        )  # fmt: skip
        self._bytes = Counter("shoal_bytes", "Bytes of bodies.", ["direction"], registry=self.registry)
        self._verdicts = Counter("shoal_verdicts", "Answers to reports.", ["verdict"], registry=self.registry)
        self._refused = Counter("shoal_refused", "Requests that were not done.", ["code"], registry=self.registry)
        self._commits = Histogram(
            "shoal_commit_seconds", "Time until what was written is durable.", registry=self.registry,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10),
        )  # fmt: skip
        self._in, self._out = self._bytes.labels("in"), self._bytes.labels("out")
        self._of_route: dict[tuple[str, int], Histogram] = {}

    def request(self, route: str, status: int, *, seconds: float, received: int, sent: int) -> None:
        """Counts one request."""
        timed = self._of_route.get((route, status))
        if timed is None:
            timed = self._of_route[route, status] = self._requests.labels(route, str(status))
        timed.observe(seconds)
        self._in.inc(received)
        self._out.inc(sent)

    def verdict(self, verdict: str) -> None:
        """Counts what became of a report, as often as it was asked."""
        self._verdicts.labels(verdict).inc()

    def refused(self, code: str) -> None:
        """Counts a request that was not done."""
        self._refused.labels(code).inc()

    def commit(self, seconds: float) -> None:
        """Counts one transaction."""
        self._commits.observe(seconds)

    def timed(self, store: Store) -> Store:
        """The store, with the time of each of its transactions counted here."""
        return _Timed(store, self)

    def text(self, runs: Iterable[RunView], *, online: int) -> bytes:
        """All figures in Prometheus' format, with those of the runs as they are now."""
        now = CollectorRegistry(auto_describe=False)
        now.register(_Now(tuple(runs), online))
        return generate_latest(self.registry) + generate_latest(now)


class _Now:
    """Figures that are read when they are asked for."""

    def __init__(self, runs: tuple[RunView, ...], online: int) -> None:
        self._runs, self._online = runs, online

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        """A gauge for each."""
        yield _gauge("shoal_runs", "Runs.", "status", Tally(run.status for run in self._runs))
        tasks = Tally[str]()
        for run in self._runs:
            tasks.update(run.tasks)
        yield _gauge("shoal_tasks", "Tasks of the open rounds.", "status", tasks)
        yield GaugeMetricFamily(
            "shoal_open_rounds",
            "Rounds that are open.",
            value=sum(run.status in ("open", "pausing") for run in self._runs),
        )
        yield GaugeMetricFamily("shoal_sessions", "Sessions of clients.", value=self._online)
        yield GaugeMetricFamily("shoal_resident_bytes", "Memory that the server holds.", value=resident_bytes())


class _Timed:
    """A store that says how long each transaction took."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    def write(self, *writes: Write) -> Future[None]:
        began = time.perf_counter()
        done = self._store.write(*writes)
        done.add_done_callback(lambda _: self._metrics.commit(time.perf_counter() - began))
        return done

    def read(self, name: str, /, **given: Any) -> list[Row]:
        return self._store.read(name, **given)

    def close(self) -> None:
        self._store.close()


def resident_bytes() -> int:
    """The memory that this process holds; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * 4096


def _gauge(name: str, text: str, label: str, counts: Tally[str]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, count in sorted(counts.items()):
        family.add_metric([value], count)
    return family
