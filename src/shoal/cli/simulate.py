"""`shoal simulate study.py`: runs a study on this machine."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shoal.cli.picture import check_picture
from shoal.cli.study_file import load
from shoal.errors import SettingError
from shoal.simulation import CsvLog, ParquetLog, SaveModel, simulate

Study = Annotated[Path, typer.Argument(help="A Python file that defines a plan and a population.")]


def command(
    study: Study,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    seed: Annotated[int, typer.Option(help="Decides the first model, the cohorts and every other draw.")] = 0,
    checkpoint: Annotated[Path | None, typer.Option(help="Save the run here, and go on from it if it exists.")] = None,
    runtime: Annotated[str, typer.Option(help="auto, compiled or local.")] = "auto",
    secure: Annotated[str, typer.Option(help="Secure sums: unmasked, or full, the whole protocol.")] = "unmasked",
    small_cohort: Annotated[
        int | None, typer.Option(help="So many clients stand in for a round of the plan's; noise is scaled with them.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Write the rounds here as they come: .csv or .parquet.")] = None,
    save: Annotated[Path | None, typer.Option(help="Save the model here, as safetensors.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Save a picture of the history here.")] = None,
) -> None:
    """Run a study's plan on its population, and print the history."""
    found = load(study)
    population, test = found.data()
    if plot is not None:
        check_picture(plot)
    callbacks = [*found.callbacks, *([_log(log)] if log else []), *([SaveModel(save)] if save else [])]
    every: dict[str, Any] = {} if found.every is None else {"every": found.every}
    chosen: dict[str, Any] = {"runtime": runtime, "secure": secure, "small_cohort": small_cohort}
    try:
        result = simulate(
            found.plan, population, test=test, seed=seed, checkpoint=checkpoint, callbacks=callbacks, **chosen, **every,
        )  # fmt: skip
    except KeyboardInterrupt as interrupt:
        kept = (
            f"run the same command again to go on from {checkpoint}"
            if checkpoint
            else "the run was not saved: name a --checkpoint to go on later"
        )
        typer.echo(f"shoal: interrupted; {kept}", err=True)
        raise typer.Exit(130) from interrupt
    if as_json:
        rows = [{name: _json(value) for name, value in row.items()} for row in result.history]
        typer.echo(
            json.dumps(
                {"plan": found.plan.digest(), "seed": seed, "noise": result.history.noise, "history": rows,
                 "stopped": result.stopped}
            )
        )  # fmt: skip
    else:
        Console().print(result)
    if plot is not None:
        result.history.plot(plot)


def _log(path: Path) -> CsvLog | ParquetLog:
    """The log of that file's kind."""
    match path.suffix.lower():
        case ".csv":
            return CsvLog(path)
        case ".parquet":
            return ParquetLog(path)
        case _:
            raise SettingError(f"a log is a .csv or a .parquet file, and {path} is neither")


def _json(value: Any) -> Any:
    """The value, or null for a number that JSON cannot hold."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
