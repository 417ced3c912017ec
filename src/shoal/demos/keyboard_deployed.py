"""The keyboard with an epsilon over a network: roles as clients, a server that is killed in the middle, its ledger.

The plan is public Shoal. `shoal demo keyboard --deployed --epsilon 4` runs it, in processes of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import shoal
from shoal.demos.keyboard_lstm import recalls
from shoal.demos.keyboard_private import DELTA, Split
from shoal.demos.processes import Processes
from shoal.operator import Operator
from shoal.privacy.budget import releases_of
from shoal.server.views import LedgerView
from shoal.store.faults import VARIABLE

RUN = "keyboard-training"
ROUNDS, WORDS, LENGTH, NORM = 4, 100, 16, 1.0
"""Rounds of training, words of the vocabulary, words of a row, and the norm of one role's change."""
ROLES, PROCESSES = 48, 3
"""How many private roles take part, and in how many processes they are."""
PATIENCE_S = 300.0
"""Nothing may take longer than this without a word."""

POLICY = """\
# What a role lets the federation do; `shoal policy sample` explains every key.
[plans]
allow = ["keyboard-*"]

[privacy]
minimum_cohort = {roles}
maximum_epsilon = {epsilon}
epsilon_delta = {delta}

[limits]
maximum_upload_bytes = 1_000_000
"""

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Terms:
    """What server and roles agree on. `port` is the server's, 0 for any."""

    epsilon: float
    rounds: int
    roles: int
    vocabulary: int
    port: int = 0

    @property
    def at_least(self) -> int:
        """Without so many a round is not closed: one that fails does not stop the others."""
        return self.roles - self.roles // 8

    @property
    def killed_at(self) -> int:
        """The round whose release is in the ledger when the server is killed, and whose model is not on disk."""
        return (self.rounds + 1) // 2


@dataclass(frozen=True)
class Deployed:
    """Recalls of the network's model, of one with simulated noise and of one without; and what the ledger says."""

    terms: Terms
    network: tuple[float, float]
    simulated: tuple[float, float]
    without_noise: tuple[float, float]
    spent: shoal.privacy.Spent
    releases: int
    ledger: LedgerView
    seconds: float


def training(terms: Terms, *, noise: bool = True) -> shoal.Plan:
    """A small LSTM. Its noise is for one release more than there are rounds: a killed server's round counts twice."""
    chain: Any = shoal.Clip(NORM) >> shoal.PlainSum() >> shoal.Mean()
    if noise:
        chain = shoal.private_mean(
            epsilon=terms.epsilon, delta=DELTA, norm=NORM, rounds=terms.rounds + 1, clients=terms.roles
        )
    work = shoal.FedAvg(network(terms), batch_size=8, client_optimizer=shoal.sgd(2.0), aggregation=chain)
    return shoal.Plan(work, rounds=terms.rounds)


def network(terms: Terms) -> shoal.models.JaxModel:
    """A model of a thousand weights: noise is added to each of them."""
    return shoal.models.word_lstm(terms.vocabulary, embedding=4, hidden=8)


def federate(
    folder: Path, split: Split, epsilon: float, rounds: int = ROUNDS, *, roles: int = ROLES, processes: int = PROCESSES,
    compiled: str | None = None, tell: Tell = lambda said: None,
) -> Deployed:  # fmt: skip
    """Trains over the network, kills the server once with SIGKILL, and measures what was learned.

    All files are in a folder. RunError if a process ends that should not, with what it said last.
    """
    names = sorted(split.private.clients)[:roles]
    rows = shoal.Texts({name: split.private.clients[name] for name in names}).rows(split.vocabulary, length=LENGTH)
    test = shoal.Texts({name: split.test.clients[name] for name in names if name in split.test.clients})
    terms = Terms(epsilon, rounds, len(names), len(split.vocabulary))
    plans = training(terms), training(terms, noise=False)
    _prepare(folder, rows, terms)
    begin = time.perf_counter()
    vector, ledger = _over_network(folder, terms, processes, compiled, tell)
    seconds = time.perf_counter() - begin
    tell({"event": "simulating"})
    vectors = (vector, *(shoal.simulate(plan, rows, progress="off").vector for plan in plans))
    (run,) = ledger.runs
    releases = sum(run.releases.values())
    kept = [releases_of(event, times) for event, times in run.releases.items()]
    spent = shoal.privacy.together(kept, delta=DELTA)
    tested = test.rows(split.vocabulary, length=LENGTH)
    found = [recalls(network(terms), np.asarray(one, np.float32), tested) for one in vectors]
    return Deployed(terms, *found, spent=spent, releases=releases, ledger=ledger, seconds=seconds)


def called(place: int) -> str:
    """A role's name in the federation: what it is called in the plays may have blanks."""
    return f"role-{place:02}"


def _prepare(folder: Path, rows: shoal.Population, terms: Terms) -> None:
    """Gives each role its rows, and all of them their policy."""
    for place, name in enumerate(rows):
        (folder / called(place)).mkdir(parents=True, exist_ok=True)
        np.savez(folder / called(place) / "rows.npz", x=rows[name].rows("x"), y=rows[name].rows("y"))
    policy = POLICY.format(roles=terms.at_least, epsilon=terms.epsilon, delta=DELTA)
    (folder / "policy.toml").write_text(policy, "utf-8")


def _over_network(
    folder: Path, terms: Terms, count: int, compiled: str | None, tell: Tell
) -> tuple[list[float], LedgerView]:
    """The model and the ledger, as an operator reads it."""
    environment = {} if compiled is None else {"JAX_COMPILATION_CACHE_DIR": compiled}
    server = folder / "server"
    server.mkdir(mode=0o700, exist_ok=True)
    with Processes(environment) as processes:

        def serve(terms: Terms, mortal: Mapping[str, str] | None) -> None:
            processes.start(
                "the server", "shoal.demos.keyboard_server", str(server), json.dumps(asdict(terms)),
                log=server / "process.log", mortal=mortal,
            )  # fmt: skip

        serve(terms, {VARIABLE: f"release-recorded:{terms.killed_at}"})
        while True:
            said = processes.next(within_s=PATIENCE_S)
            tell(said)
            match said["event"]:
                case "ready" if "token" in said:
                    terms = replace(terms, port=urlsplit(said["url"]).port or 0)
                    for part in range(count):
                        names = [called(place) for place in range(part, terms.roles, count)]
                        processes.start(
                            f"roles {part}", "shoal.demos.keyboard_site", str(folder), said["url"], said["authority"],
                            *names, log=folder / f"roles-{part}.log", secret=said["token"],
                        )  # fmt: skip
                case "ended":
                    serve(terms, None)
                case "found":
                    with Operator.at(server) as operator:
                        return said["vector"], operator.ledger()
                case _:
                    pass
