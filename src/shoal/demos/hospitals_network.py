"""The demo put together: a server and four hospitals as processes, over TLS, and the same plans in `simulate`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.client.ledger import Ledger
from shoal.data.hospitals import HOSPITALS
from shoal.demos.hospitals_deployed import Found, read_table, simulated, study, tables, write_table
from shoal.demos.processes import Processes

PATIENCE_S = 120.0
"""Nothing may take longer than this without a word."""

POLICY = """\
# What this hospital lets the federation do; `shoal policy sample` explains every key.
[plans]
allow = ["heart-*"]

[privacy]
minimum_cohort = 4

[limits]
maximum_upload_bytes = 10_000
"""

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Left:
    """What a hospital's ledger says left it: results and their bytes, and all messages with theirs."""

    name: str
    patients: int
    results: int
    result_bytes: int
    messages: int
    message_bytes: int
    sound: bool


@dataclass(frozen=True)
class Deployed:
    """What the server found over the network, what `simulate` finds, and what left each hospital."""

    network: Found
    simulated: Found
    seconds: float
    left: tuple[Left, ...]
    rounds: int

    @property
    def equal(self) -> bool:
        """Whether network and simulation found the same, to the bit."""
        return self.network == self.simulated


def federate(folder: Path, rounds: int, *, compiled: str | None = None, tell: Tell = lambda said: None) -> Deployed:
    """Runs the study over the network, with all files in a folder. RunError if a process ends, with what it said last.

    `compiled` is a folder for JAX's compiled programs; `tell` hears what the server says.
    """
    for name, table in tables().items():
        site = folder / name
        site.mkdir(parents=True, exist_ok=True)
        write_table(site / "patients.csv", table)
        (site / "policy.toml").write_text(POLICY, "utf-8")
    begin = time.perf_counter()
    network = _over_network(folder, rounds, compiled, tell)
    seconds = time.perf_counter() - begin
    tell({"event": "simulating"})
    found = study(simulated({name: read_table(folder / name / "patients.csv") for name in HOSPITALS}), rounds)
    return Deployed(network, found, seconds, tuple(left(folder, name) for name in HOSPITALS), rounds)


def _over_network(folder: Path, rounds: int, compiled: str | None, tell: Tell) -> Found:
    environment = {} if compiled is None else {"JAX_COMPILATION_CACHE_DIR": compiled}
    (folder / "server").mkdir(mode=0o700, exist_ok=True)
    with Processes(environment) as processes:
        processes.start(
            "the server", "shoal.demos.hospitals_server", str(folder / "server"), str(rounds),
            log=folder / "server" / "process.log",
        )  # fmt: skip
        while True:
            said = processes.next(within_s=PATIENCE_S)
            tell(said)
            if said["event"] == "found":
                return _found(said["found"])
            if said["event"] == "ready":
                for name in HOSPITALS:
                    processes.start(
                        name, "shoal.demos.hospitals_site", str(folder / name), name, said["url"], said["authority"],
                        log=folder / name / "agent.log", secret=said["token"],
                    )  # fmt: skip


def _found(said: dict[str, Any]) -> Found:
    lists = {name: tuple(said[name]) for name in ("means", "deviations", "vector")}
    return Found(patients=said["patients"], measured=said["measured"], **lists)


def left(folder: Path, name: str) -> Left:
    """What the ledger of a hospital says."""
    with Ledger.existing(folder / name / "home" / "ledger.db") as ledger:
        results = [entry.bytes for entry in ledger.entries() if entry.kind == "result"]
        traffic = ledger.traffic_by_day()
        return Left(
            name, len(read_table(folder / name / "patients.csv")["patient"]), len(results), sum(results),
            sum(day.messages for day in traffic), sum(day.bytes for day in traffic), not ledger.verify(),
        )  # fmt: skip
