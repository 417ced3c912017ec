"""A server's process that is killed and started again, the agents of its sites, and what must be true at the end."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from shoal.client.agent import Agent
from shoal.client.events import Event
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.roster import FILE as ROSTER
from shoal.client.roster import write_roster
from shoal.server import closing
from shoal.server.audit import verify
from shoal.server.certificates import development_certificates
from shoal.server.records import stored_of
from shoal.store.blob_store import open_blobs
from shoal.store.faults import VARIABLE
from shoal.store.store import Store, open_store
from shoal.wire.blobs import blob_id
from shoal.wire.signing import public_key_of
from tests.chaos.agent import joined
from tests.chaos.study import PLANS, SEED, SITES, wanted
from tests.compiling import XLA_FLAGS

OVER = ("completed", "failed", "cancelled", "paused")


NURSERY = multiprocessing.get_context("forkserver")
"""Processes are forked from one that has imported everything and begun nothing: so that a start takes no seconds."""
NURSERY.set_forkserver_preload(["tests.chaos.serve", "tests.chaos.agent"])


def live(module: str, arguments: tuple[str, ...], environment: dict[str, str], out: Connection) -> None:
    """What a process does from its first moment."""
    os.dup2(out.fileno(), 1)
    os.environ.pop(VARIABLE, None)
    os.environ.update(environment)
    os.environ["XLA_FLAGS"] = XLA_FLAGS  # the model of the simulation beside it, to the bit
    importlib.import_module(f"tests.chaos.{module}").main(*arguments)


class Process:
    """A process of the tests, whose standard output is kept line by line."""

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        reader, writer = NURSERY.Pipe(duplex=False)
        self._process = NURSERY.Process(target=live, args=(module, arguments, environment, writer), daemon=True)
        self._process.start()
        writer.close()
        self._out = os.fdopen(os.dup(reader.fileno()))
        reader.close()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def _read(self) -> None:
        for line in self._out:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def alive(self) -> bool:
        return self._process.is_alive()

    def wait_for(self, told: str, *, times: int = 1, within_s: float = 60.0) -> None:
        """Returns when lines say something so often; fails if the process ends before."""
        with self._news:
            self._news.wait_for(lambda: self.said(told) >= times or not self._reader.is_alive(), within_s)
            assert self.said(told) >= times, (told, self.lines[-10:])

    def said(self, told: str) -> int:
        return sum(told in line for line in self.lines)

    def kill(self) -> None:
        """As a power cut does, but that the disk keeps what it was given."""
        self._process.kill()
        self.ended()

    def stop(self) -> int:
        """Asks it to end."""
        self.send(signal.SIGTERM)
        return self.ended()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, *, within_s: float = 60.0) -> int:
        """Waits for its end; how it ended."""
        self._process.join(within_s)
        assert self._process.exitcode is not None, self.lines[-10:]
        self._reader.join()
        self._out.close()
        return self._process.exitcode


class Cluster:
    """One folder with a server and its sites. Agents are threads here, unless a test wants processes."""

    def __init__(
        self, folder: Path, plan: str = "small", *, store: str | None = None, blobs: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.plan, self.environment = folder, plan, dict(environment or {})
        self.store = store or str(folder / "server" / "store.sqlite")
        self.blobs = blobs or str(folder / "server" / "blobs")
        self.tls = development_certificates(folder / "server" / "certificates", ["127.0.0.1", "localhost"])
        self.authority = str(self.tls.authority)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.server: Process | None = None
        self.events: dict[str, list[Event]] = {name: [] for name in SITES.names}
        self.failures: dict[str, BaseException] = {}
        self._agents: dict[str, Agent] = {}
        self._threads: list[threading.Thread] = []
        self._processes: list[Process] = []
        self._http = urllib3.PoolManager(ca_certs=self.authority, retries=False, timeout=5.0)
        self._leaving = threading.Event()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.leave()
        for process in (*self._processes, *([self.server] if self.server else [])):
            if process.alive():
                process.kill()

    # the server

    def serve(self, crash: str | None = None, **environment: str) -> Process:
        """Starts the server; it may die before it is ready, if that is asked for."""
        given = self.environment | environment | ({VARIABLE: crash} if crash else {})
        self.server = Process(
            "serve", str(self.folder / "server"), str(self.port), self.plan, self.store, self.blobs, **given
        )
        if crash is None:
            self.server.wait_for("https://")
        return self.server

    def survive(self, crashes: Iterable[str], *, within_s: float = 240.0) -> None:
        """Serves to the run's end, and dies once at each of these points on the way."""
        for crash in crashes:
            code = self.serve(crash).ended(within_s=within_s)
            assert code == -signal.SIGKILL, (crash, code)
        self.serve()
        self.wait_over(within_s=within_s)

    def ask(self, method: str, path: str) -> Any:
        """What the operators' API answers; None while there is no server."""
        token = (self.folder / "server" / "operator.token").read_text().strip()
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer = self._http.request(method, self.url + path, headers={"authorization": f"Bearer {token}"})
            if answer.status == 200:
                return json.loads(answer.data)
        return None

    def run(self) -> Any:
        return self.ask("GET", "/v1/runs/study")

    def wait_until(self, true: Callable[[Any], bool], *, within_s: float = 120.0) -> Any:
        """The run, when something is true of it."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            view = self.run()
            if view is not None and true(view):
                return view
            if self.failures:
                raise AssertionError(self.failures)
            time.sleep(0.05)
        raise AssertionError(("it did not come to that", self.run(), self.log()[-5:]))

    def wait_over(self, *, within_s: float = 120.0) -> Any:
        """The run, when nothing of it is to come."""
        return self.wait_until(lambda view: view["status"] in OVER, within_s=within_s)

    def wait_round(self, round: int) -> Any:
        """The run, when so many rounds are closed."""
        return self.wait_until(lambda view: view["round"] >= round)

    def log(self) -> list[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            return [json.loads(line) for line in (self.folder / "server" / "log.jsonl").read_text().splitlines()]
        return []

    # sites

    def home(self, name: str) -> Path:
        return self.folder / name

    def bring_rosters(self) -> None:
        """Gives each site the keys of all, as people would."""
        keys = {name: public_key_of(Home(self.home(name)).private_key) for name in SITES.names}
        for name in SITES.names:
            write_roster(self.home(name) / ROSTER, keys)

    def join(self, *names: str, url: str | None = None) -> None:
        """Starts agents in threads."""
        if self.plan == "masked":
            self.bring_rosters()
        for name in names or SITES.names:
            self._threads.append(threading.Thread(target=self._live, args=(name, url or self.url)))
            self._threads[-1].start()

    def _live(self, name: str, url: str) -> None:
        try:
            tell = self.events[name].append
            with joined(self.home(name), url, Path(self.authority).read_text(), name, tell=tell) as agent:
                self._agents[name] = agent
                if self._leaving.is_set():
                    agent.stop()
                agent.run()
        except BaseException as error:
            if not self._leaving.is_set():
                self.failures[name] = error

    def agent(
        self, name: str, *, home: Path | None = None, url: str | None = None, crash: str | None = None,
        **environment: str,
    ) -> Process:  # fmt: skip
        """Starts an agent in a process of its own."""
        arguments = (str(home or self.home(name)), url or self.url, self.authority, name)
        given = {VARIABLE: crash} if crash else {}
        self._processes.append(Process("agent", *arguments, **given, **environment))
        return self._processes[-1]

    def leave(self) -> None:
        """Stops the agents that are threads."""
        self._leaving.set()
        for agent in self._agents.values():
            agent.stop()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    # the law

    def check(self) -> None:
        """Ends the server, and looks at what it left: the simulation's model, and nothing lost or counted twice."""
        assert self.server is not None and self.server.stop() == 0
        with self.opened() as store:
            check_rows(store, PLANS[self.plan].rounds)
            (row,) = store.read("runs")
            stored = stored_of(row)
            owner = owner_of(store)
        blobs = open_blobs(self.blobs, folder=self.folder / "server" / "blobs", owner=owner)
        state = blobs.read(blob_id(stored[0]), offset=0, length=stored[0].size_bytes)
        model = closing.model_of(PLANS[self.plan].algorithm, SEED, state)
        assert np.array_equal(np.asarray(model.run.state.vector), wanted(self.plan))
        assert set(blobs.ids()) <= set(map(blob_id, stored))
        for name in SITES.names:
            with Ledger.existing(self.home(name) / "ledger.db") as ledger:
                assert ledger.verify() == ()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Store]:
        """The store, while no server has it."""
        store = open_store(self.store)
        try:
            yield store
        finally:
            store.close()


def owner_of(store: Store) -> str:
    """Whose blobs those beside a store are."""
    (known,) = store.read("federation")
    return f"{known['name']} since {known['created']}"


def check_rows(store: Store, rounds: int) -> None:
    """Every round is closed once, with every site counted once in it, and the audit log holds together."""
    (run,) = store.read("runs")
    assert (run["status"], run["round"]) == ("completed", rounds)
    history = store.read("rounds", run=run["id"])
    closed = [(row["round"], row["attempt"]) for row in history if row["status"] == "closed"]
    assert [round for round, _ in closed] == list(range(rounds))
    assert all(row["status"] in ("closed", "abandoned") for row in history)
    assert all(row["clients"] == len(SITES.names) for row in history if row["status"] == "closed")
    for round, attempt in closed:
        tasks = store.read("tasks_of_round", run=run["id"], round=round, attempt=attempt)
        summed = Counter(row["client"] for row in tasks if row["summed"] == round)
        assert summed == Counter(SITES.names), (round, attempt, tasks)
        assert all(row["status"] == "counted" for row in tasks if row["summed"] is not None)
    assert verify(store).rows > 2 * rounds
