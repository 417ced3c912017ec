"""The demo put together: a server and four hospitals as processes, over TLS, and the same plans in `simulate`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.roster import FILE, write_roster
from shoal.data.hospitals import HOSPITALS
from shoal.demos.hospitals_deployed import (
    RUNS,
    Columns,
    Found,
    Terms,
    read_table,
    simulated,
    study,
    tables,
    write_table,
)
from shoal.demos.processes import Processes
from shoal.store.faults import VARIABLE
from shoal.wire.signing import public_key_of

PATIENCE_S = 120.0
"""Nothing may take longer than this without a word."""

POLICY = """\
# What this hospital lets the federation do; `shoal policy sample` explains every key.
[plans]
allow = ["heart-*"]

[privacy]
{privacy}

[limits]
maximum_upload_bytes = 10_000
"""
PLAIN = "minimum_cohort = 4"
MASKED = """\
minimum_cohort = 3
minimum_threshold = 0.75"""
NOISED = """\

maximum_epsilon = {epsilon}
epsilon_delta = {delta}"""

Stage = Literal["advertise", "share", "mask", "confirm", "answer"]
KILLED_AT: Mapping[Stage, str] = {
    "mask": "client-sent-before",
    **{stage: f"client-secure-{stage}" for stage in ("advertise", "share", "confirm", "answer")},
}
"""Where a hospital is before its message of a stage of a secure sum leaves."""
STAGE_S, KILLED_STAGE_S = 30.0, 10.0
"""How long a hospital is waited for in a stage, and how long where one is killed."""


@dataclass(frozen=True)
class Killed:
    """A hospital whose process is killed in a round of training, before its message of a stage leaves.

    It is started again, and takes part in the next round.
    """

    stage: Stage
    round: int
    hospital: str = HOSPITALS[-1]

    @property
    def absent(self) -> Mapping[tuple[str, int], str]:
        """The round that it has no part in: none, if its contribution had arrived."""
        return {(RUNS[1], self.round): self.hospital} if self.stage in ("advertise", "share", "mask") else {}


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
    secure: bool = False
    killed: Killed | None = None

    @property
    def equal(self) -> bool:
        """Whether network and simulation found the same, to the bit."""
        return self.network == self.simulated


def federate(
    folder: Path, rounds: int, *, secure: bool = False, kill: Stage | None = None, compiled: str | None = None,
    tell: Tell = lambda said: None,
) -> Deployed:  # fmt: skip
    """Runs the study over the network, with all files in a folder. RunError if a process ends, with what it said last.

    With `secure` the server sees sums of hospitals and no hospital's own; `kill` is the stage of such a sum in which
    one of them is killed once. `compiled` is a folder for JAX's compiled programs; `tell` hears what the server says.
    """
    killed = None if kill is None else Killed(kill, (rounds + 1) // 2)
    terms = Terms(rounds, secure, KILLED_STAGE_S if killed else STAGE_S)
    prepare(folder, MASKED if secure else PLAIN)
    if secure:
        bring_keys(folder)
    begin = time.perf_counter()
    network = _found(over_network(folder, terms, killed=killed, compiled=compiled, tell=tell))
    seconds = time.perf_counter() - begin
    tell({"event": "simulating"})
    found = study(simulated(held(folder), absent=killed.absent if killed else None), rounds, secure=secure)
    return Deployed(
        network, found, seconds, tuple(left(folder, name) for name in HOSPITALS), rounds, secure, killed
    )  # fmt: skip


def prepare(folder: Path, privacy: str) -> None:
    """Gives each hospital its table, and a policy with what it asks for."""
    for name, table in tables().items():
        site = folder / name
        site.mkdir(parents=True, exist_ok=True)
        write_table(site / "patients.csv", table)
        (site / "policy.toml").write_text(POLICY.format(privacy=privacy), "utf-8")


def held(folder: Path) -> dict[str, Columns]:
    """Each hospital's table, as its file has it."""
    return {name: read_table(folder / name / "patients.csv") for name in HOSPITALS}


def bring_keys(folder: Path) -> None:
    """What people do before secure sums: the public key of each hospital is brought to all of them."""
    homes = {name: Home(folder / name / "home") for name in HOSPITALS}
    keys = {name: public_key_of(home.private_key) for name, home in homes.items()}
    for home in homes.values():
        write_roster(home.folder / FILE, keys)


def over_network(
    folder: Path, terms: Terms, *, killed: Killed | None = None, compiled: str | None = None,
    tell: Tell = lambda said: None,
) -> dict[str, Any]:  # fmt: skip
    """What the server finds, in what was prepared; a process that was killed is started again."""
    environment = {} if compiled is None else {"JAX_COMPILATION_CACHE_DIR": compiled}
    (folder / "server").mkdir(mode=0o700, exist_ok=True)
    with Processes(environment) as processes:
        processes.start(
            "the server", "shoal.demos.hospitals_server", str(folder / "server"), json.dumps(asdict(terms)),
            log=folder / "server" / "process.log",
        )  # fmt: skip
        ready: Mapping[str, Any] = {}
        while True:
            said = processes.next(within_s=PATIENCE_S)
            tell(said)
            match said["event"]:
                case "found":
                    return said["found"]
                case "ready":
                    ready = said
                    for name in HOSPITALS:
                        _start(processes, folder, name, ready, killed)
                case "ended":
                    _start(processes, folder, said["name"], ready, None)
                case _:
                    pass


def _start(processes: Processes, folder: Path, name: str, ready: Mapping[str, Any], killed: Killed | None) -> None:
    """Starts a hospital; the one that is to be killed ends itself there, as a power cut would."""
    mortal = None
    if killed is not None and killed.hospital == name:
        mortal = {VARIABLE: f"{KILLED_AT[killed.stage]}:{1 + killed.round}"}  # once in statistics, then once a round
    processes.start(
        name, "shoal.demos.hospitals_site", str(folder / name), name, ready["url"], ready["authority"],
        log=folder / name / "agent.log", secret=ready["token"], mortal=mortal,
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
