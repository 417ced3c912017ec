"""A server and agents that talk over TLS on this machine."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, contextmanager

import numpy as np

from shoal.client.agent import Agent
from shoal.client.backoff import Backoff
from shoal.client.enrolment import enrol
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.policy import Policy
from shoal.server.app import App
from shoal.server.certificates import development_certificates
from shoal.server.coordinator import Coordinator
from shoal.server.operators import Operators
from shoal.server.serving import Place, Serving
from shoal.store.blobs import Blobs
from shoal.store.store import open_store


class Federation:
    """A server's folder and its port, and agents with a thread each."""

    def __init__(self, folder, sites):
        self.folder, self.sites, self.threads, self.agents, self.failures = folder, sites, [], {}, []
        self.tls = development_certificates(folder / "tls", ["localhost", "127.0.0.1"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @contextmanager
    def server(self):
        store = open_store(str(self.folder / "shoal.db"))
        coordinator = Coordinator(store, Blobs(self.folder / "blobs"), federation="wards")
        app = App(coordinator, operators=Operators.of(self.folder))
        with ExitStack() as stack:
            stack.callback(store.close)
            place = Place(port=self.port, tls=self.tls, drain_s=2.0)
            serving = stack.enter_context(Serving(app, place, start=coordinator.start))
            yield coordinator, serving.call

    def join(self, name, token):
        home = Home(self.folder / name)
        authority = self.tls.authority.read_text()
        line = Line(f"https://localhost:{self.port}", authority=authority)
        with Ledger(home.folder / "ledger.db") as ledger:
            enrol(home, line, token=token, name=name, ledger=ledger, authority=authority)
        line.close()
        self.agents[name] = self.agent(name)
        self.threads.append(threading.Thread(target=self._run, args=(name,)))
        self.threads[-1].start()

    def agent(self, name, **options):
        columns = {column: np.array(self.sites[name].rows(column)) for column in "xy"}
        options = {"policy": Policy(allow="any"), "backoff": Backoff(0.05, 0.2)} | options
        return Agent(Home(self.folder / name), Columns(columns), **options)

    def _run(self, name):
        while True:
            try:
                return self.agents[name].run()
            except SystemExit:  # it was killed, and is started again
                self.agents[name].close()
                self.agents[name] = self.agent(name)
            except Exception as error:
                return self.failures.append(error)

    def stop(self):
        for agent in self.agents.values():
            agent.stop()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        for agent in self.agents.values():
            agent.close()
        self.agents, self.threads = {}, []
        assert self.failures == []


class Columns:
    def __init__(self, columns):
        self.columns = columns

    def load(self, plan):
        return self.columns
