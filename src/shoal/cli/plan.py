"""`shoal plan study.py`: what a study will do, before it does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.study_file import load

Study = Annotated[Path, typer.Argument(help="A Python file that defines a plan.")]


def command(
    study: Study, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Print a study's plan: its work, what passes the chain, what leaves a client, its digest."""
    plan = load(study).plan
    typer.echo(json.dumps({"digest": plan.digest(), "plan": plan.describe()}) if as_json else str(plan))
