"""`shoal demo hospitals`: four hospitals and a server as processes, or many splits simulated."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import typer
from rich.console import Console
from rich.progress import Progress

from shoal.cli.picture import check_picture
from shoal.data.hospitals import HOSPITALS
from shoal.demos import deployed_report, hospitals_private, private_report, report
from shoal.demos.hospitals import study
from shoal.demos.hospitals_deployed import Terms
from shoal.demos.hospitals_network import Stage, federate
from shoal.demos.hospitals_private_network import federate_privately
from shoal.errors import MissingExtraError, SettingError

Found = TypeVar("Found")


def command(
    rounds: Annotated[
        int | None, typer.Option(help=f"Rounds of training: 50, with --epsilon {hospitals_private.ROUNDS}.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Train with so much differential privacy for each hospital as a whole.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Keep every file of server and hospitals here.")] = None,
    secure: Annotated[
        bool, typer.Option("--secure", help="The server sees sums of hospitals, not each one's.")
    ] = False,
    kill: Annotated[
        Stage | None, typer.Option(help="With --secure: kill one hospital in the middle, before it says this.")
    ] = None,
    simulated: Annotated[bool, typer.Option("--simulate", help="No network: every way to train, many splits.")] = False,
    seeds: Annotated[int | None, typer.Option(help="Random splits to average over, with --simulate: 10.")] = None,
    png: Annotated[Path | None, typer.Option(help="Where --simulate saves its picture: hospitals.png.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Four real hospitals learn to recognise heart disease, over TLS, each a process with its own data and policy."""
    if epsilon is not None and (kill, png) != (None, None):
        raise SettingError("--kill and --png are for runs without noise: leave them out, or leave out --epsilon")
    if rounds is None:
        rounds = 50 if epsilon is None else hospitals_private.ROUNDS
    if rounds < 1:
        raise SettingError(f"a plan has at least one round, not {rounds}")
    if simulated and (folder is not None or secure):
        raise SettingError(
            "--folder and --secure are for the hospitals over a network: leave them out, or leave out --simulate"
        )
    if kill is not None and not secure:
        raise SettingError("--kill names a stage of a secure sum: add --secure, or leave it out")
    if not simulated and (seeds, png) != (None, None):
        raise SettingError("--seeds and --png are for many simulated splits: add --simulate, or leave them out")
    if epsilon is not None:
        terms = Terms(rounds, secure, epsilon=epsilon)
        if simulated:
            _simulate_privately(10 if seeds is None else seeds, terms, as_json=as_json)
        else:
            _deploy_privately(folder, terms, as_json=as_json)
    elif simulated:
        _simulate(10 if seeds is None else seeds, rounds, png or Path("hospitals.png"), as_json=as_json)
    else:
        _deploy(rounds, folder, secure, kill, as_json=as_json)


def _deploy(rounds: int, folder: Path | None, secure: bool, kill: Stage | None, *, as_json: bool) -> None:
    found = _with_progress(folder, lambda place, **way: federate(place, rounds, secure=secure, kill=kill, **way))
    if as_json:
        typer.echo(json.dumps(deployed_report.data(found)))
        return
    for table in deployed_report.tables(found):
        Console().print(table)
    Console().print(deployed_report.verdict(found), style="bold")
    Console().print(_where(folder), style="dim", highlight=False)


def _deploy_privately(folder: Path | None, terms: Terms, *, as_json: bool) -> None:
    found = _with_progress(folder, lambda place, **way: federate_privately(place, terms, **way))
    if as_json:
        typer.echo(json.dumps(private_report.deployed_data(found)))
        return
    for table in private_report.deployed_tables(found):
        Console().print(table)
    Console().print(str(found.spent), highlight=False)
    Console().print(private_report.UNIT, private_report.OUTSIDE, _where(folder), style="dim", highlight=False, sep="\n")


def _with_progress(folder: Path | None, federation: Callable[..., Found]) -> Found:
    """What a federation in a folder finds, with its progress shown."""
    compiled: str | None = jax.config.values["jax_compilation_cache_dir"]
    try:
        with tempfile.TemporaryDirectory() as place, Progress(console=Console(stderr=True), transient=True) as bar:
            return federation(folder or Path(place), compiled=compiled, tell=_Steps(bar).tell)
    except KeyboardInterrupt as interrupt:
        typer.echo("shoal: interrupted; the server and the hospitals have ended", err=True)
        raise typer.Exit(130) from interrupt


def _where(folder: Path | None) -> str:
    if folder is None:
        return "Nothing is kept. --folder PLACE keeps the server's store and each hospital's data, key, policy, ledger."
    return f"In {folder}: the server's store and log, and each hospital's data, key, policy and ledger."


class _Steps:
    """What is going on, as a line and a bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting a server", total=None)

    def tell(self, said: Mapping[str, Any]) -> None:
        match said:
            case {"event": "ready", "url": url}:
                self._bar.update(self._task, description=f"{len(HOSPITALS)} hospitals join {url}")
            case {"event": "round", "run": run, "round": round, "rounds": rounds}:
                self._bar.update(self._task, description=f"{run}", completed=round, total=rounds)
            case {"event": "ended", "name": name}:
                self._bar.update(self._task, description=f"{name} was killed")
            case {"event": "simulating"}:
                self._bar.update(self._task, description="the same plans in simulate", total=None)
            case _:
                pass


def _simulate(seeds: int, rounds: int, png: Path, *, as_json: bool) -> None:
    if seeds < 1:
        raise SettingError(f"a study averages over at least one split, not {seeds}")
    check_picture(png)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=seeds)
        found = study(seeds, rounds, lambda: bar.advance(task))
    if as_json:
        typer.echo(json.dumps(report.data(found)))
    else:
        for table in report.tables(found):
            Console().print(table)
        Console().print(report.NOTE, style="dim")
    try:
        report.picture(found, png)
        print(f"picture saved in {png}", file=sys.stderr)
    except MissingExtraError as error:
        print(f"no picture: {error}", file=sys.stderr)


def _simulate_privately(seeds: int, terms: Terms, *, as_json: bool) -> None:
    assert terms.epsilon is not None
    if seeds < 1:
        raise SettingError(f"a study averages over at least one split, not {seeds}")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=seeds)
        found = hospitals_private.study(terms.epsilon, seeds, terms.rounds, lambda: bar.advance(task))
    if as_json:
        typer.echo(json.dumps(private_report.data(found)))
        return
    for table in private_report.tables(found):
        Console().print(table)
    Console().print(str(found.spent), highlight=False)
    Console().print(private_report.UNIT, private_report.SIMULATED, style="dim", highlight=False, sep="\n")
