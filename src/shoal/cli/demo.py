"""`shoal demo`: complete studies on real data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from shoal.cli import demo_images, demo_keyboard
from shoal.cli.picture import check_picture
from shoal.demos import report
from shoal.demos.hospitals import study
from shoal.errors import MissingExtraError, SettingError

app = typer.Typer(no_args_is_help=True, help="Complete studies on real data.")


@app.callback()
def demos() -> None:
    """Complete studies on real data."""


app.command("images")(demo_images.command)
app.command("keyboard")(demo_keyboard.command)


@app.command()
def hospitals(
    seeds: Annotated[int, typer.Option(help="Random splits to average over.")] = 10,
    rounds: Annotated[int, typer.Option(help="Rounds of training.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    png: Annotated[Path, typer.Option(help="Where to save the picture.")] = Path("hospitals.png"),
) -> None:
    """Four real hospitals learn to recognise heart disease: alone, together, and pooled."""
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
