"""`shoal serve study.py`: a server, and a run of the study on it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli.durations import seconds
from shoal.cli.operating import FOLDER
from shoal.cli.rounds import Watch
from shoal.cli.study_file import StudyFile, load
from shoal.cli.tables import print_json
from shoal.errors import SettingError
from shoal.plan import Plan
from shoal.privacy.budget import Budget
from shoal.rounds.rules import Rules
from shoal.server import logs
from shoal.server.federation import Federation, log_to_file
from shoal.server.secure_run import fewest
from shoal.server.serving import Serving

_LOOK_S = 0.25

Study = Annotated[
    Path | None, typer.Argument(help="A Python file that defines a plan. Without: the runs that are there.")
]
Name = Annotated[str | None, typer.Option(help="The run's name: the study file's, if not said.")]
Clients = Annotated[
    int | None, typer.Option(min=1, help="A round opens when so many are there, and closes with no fewer.")
]
AtLeast = Annotated[int | None, typer.Option(min=1, help="With how many a round may close at its deadline.")]
Deadline = Annotated[str | None, typer.Option(help="How long a round may take: 90s, 30m, 1h. 1h if not said.")]
Over = Annotated[float | None, typer.Option(help="Ask so many times the cohort, and close with the first that come.")]
Buffer = Annotated[int | None, typer.Option(min=1, help="No rounds: a new model after so many contributions.")]
Seed = Annotated[int | None, typer.Option(help="Decides first model and cohorts, as in a simulation; else drawn.")]
Epsilon = Annotated[
    float | None, typer.Option(help="The budget of all runs together: what they may give away of one client. Kept.")
]
Hosts = Annotated[
    list[str] | None, typer.Option("--public-host", help="A name by which clients call this machine. May be repeated.")
]


def command(
    study: Study = None,
    name: Name = None,
    clients: Clients = None,
    at_least: AtLeast = None,
    deadline: Deadline = None,
    over_selection: Over = None,
    buffer: Buffer = None,
    seed: Seed = None,
    until_done: Annotated[bool, typer.Option("--until-done", help="End when the run has.")] = False,
    folder: Annotated[Path, typer.Option(help="Where everything is kept; the same folder goes on.")] = FOLDER,
    federation: Annotated[str | None, typer.Option(help="The federation's name, said once.")] = None,
    epsilon: Epsilon = None,
    delta: Annotated[float | None, typer.Option(help="Goes with --epsilon: under one over the clients.")] = None,
    store: Annotated[str | None, typer.Option(help="A store's URL, such as postgresql://user@host/shoal.")] = None,
    blobs: Annotated[str | None, typer.Option(help="Where models lie, such as s3://bucket/prefix.")] = None,
    host: Annotated[str, typer.Option(help="The address to serve at; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")] = 8433,
    public_host: Hosts = None,
    cert: Annotated[Path | None, typer.Option(help="The server's certificate, PEM. Its own if none is given.")] = None,
    key: Annotated[Path | None, typer.Option(help="The certificate's key, PEM, without a password.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Plain HTTP, on this machine only.")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="The log to stderr, in place of progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON when it serves, and at the end.")] = False,
) -> None:
    """Serve a study: its rounds go on with the clients that join, until it is told to end."""
    of_run = (name, clients, at_least, deadline, over_selection, buffer, seed)
    if study is None and (until_done or any(option is not None for option in of_run)):
        raise SettingError("a run's options go with its study file: name it, as in  shoal serve study.py")
    found = None if study is None else load(study)
    rules = None if found is None else _rules(found.plan, clients, at_least, deadline, over_selection, buffer)
    server = Federation.at(
        folder, name=federation, store=store, blobs=blobs, host=host, port=port, hosts=public_host or (),
        certificate=cert, key=key, insecure=insecure, plans=() if found is None else (found.plan,),
        budget=_budget(epsilon, delta),
    )  # fmt: skip
    if log_json:
        logs.to_stream()
    else:
        log_to_file(folder)
    with _stopping() as stop, server.running() as serving:
        run = None if found is None else _begun(serving, server, found, name=name, rules=rules, seed=seed)
        _tell(server, run, found, as_json=as_json)
        if run is None:
            while serving.alive and not stop.wait(_LOOK_S):
                pass
        else:
            watch = Watch(serving, server, run, quiet=log_json)
            _attend(watch, lambda: stop.wait(_LOOK_S) or not serving.alive, until_done=until_done, as_json=as_json)
        if stop.is_set() and not as_json:
            typer.echo("ending, when what is under way is done; Ctrl-C does not wait for it", err=True)


def _rules(
    plan: Plan, clients: int | None, at_least: int | None, deadline: str | None, over: float | None, buffer: int | None
) -> Rules | None:
    """The rules that were said; None if none was."""
    said: dict[str, Any] = {
        "wait_for": clients, "at_least": at_least or clients, "over_selection": over, "buffer": buffer,
        "deadline_s": None if deadline is None else seconds(deadline),
    }  # fmt: skip
    given = {name: value for name, value in said.items() if value is not None}
    return Rules(**{"at_least": fewest(plan), **given}) if given else None


def _budget(epsilon: float | None, delta: float | None) -> Budget | None:
    """The budget that was said; None if none was."""
    if epsilon is None and delta is None:
        return None
    if epsilon is None or delta is None:
        raise SettingError("a budget is an epsilon at a delta: say both, as in  --epsilon 8 --delta 1e-6")
    return Budget(epsilon, delta)


def _begun(
    serving: Serving, server: Federation, study: StudyFile, *, name: str | None, rules: Rules | None, seed: int | None
) -> str:
    """The run's id, begun now or before."""
    begun = server.submit_once(study.plan, name=name or study.path.stem, rules=rules, seed=seed)
    return serving.call(begun, timeout_s=None)


def _tell(server: Federation, run: str | None, study: StudyFile | None, *, as_json: bool) -> None:
    """Says where it serves, and what a site needs to join."""
    name, authority = server.coordinator.federation, server.tls.authority if server.tls else None
    fingerprint = server.tls.fingerprint if server.tls else ""
    if as_json:
        print_json({
            "federation": name, "url": server.url, "folder": str(server.folder), "run": run, "fingerprint": fingerprint,
            "authority": None if authority is None else str(authority),
            "budget": None if server.budget is None else asdict(server.budget),
        })  # fmt: skip
        sys.stdout.flush()
        return
    lines = [("federation", f"{name} at {server.url}"), ("folder", str(server.folder))]
    if authority is not None:
        lines += [("authority", f"{authority}"), ("fingerprint", f"{fingerprint} (SHA-256)")]
    if study is not None:
        lines.append(("plan", study.plan.digest()))
    if server.budget is not None:
        lines.append(("budget", f"{server.budget} for all runs together; shoal privacy --ledger says what is spent"))
    for word, text in lines:
        typer.echo(f"{word:<13}{text}", err=True)
    trust = f" --fingerprint {fingerprint.replace(':', '').lower()}" if fingerprint else ""
    typer.echo(
        f"\nFor each site a token:   shoal token --folder {server.folder} --label NAME"
        f"\nAt the site:             shoal join {server.url}{trust} --token TOKEN --name NAME --data FILE_OR_URL\n",
        err=True,
    )


def _attend(watch: Watch, ends: Callable[[], bool], *, until_done: bool, as_json: bool) -> None:
    """Shows the rounds until the server ends, or until the run has if that is asked for."""
    over = False
    with watch.shown():
        while not ((over and until_done) or ends()):
            over = watch.look()
    if over and until_done:
        found = watch.run()
        if as_json:
            print_json(found)
        if found.status != "completed":
            raise typer.Exit(1)


@contextmanager
def _stopping() -> Generator[threading.Event]:
    """Set by SIGTERM and by the first Ctrl-C; the second Ctrl-C does not wait for what is under way."""
    stop = threading.Event()

    def told(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
