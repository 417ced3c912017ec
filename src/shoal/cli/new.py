"""`shoal new NAME`: a project to begin with."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from shoal.client.policy import Policy
from shoal.errors import SettingError

TEMPLATES = {"study.py": "study.txt", "README.md": "readme.txt", ".gitignore": "gitignore.txt"}
SITES = ("north", "south", "west")


def command(
    name: Annotated[Path, typer.Argument(help="The folder of the project, which is made.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a project: a study that runs as it is, tables to try it on, a site's policy, and what to do next."""
    made = create(name)
    if as_json:
        typer.echo(json.dumps({"folder": str(name), "files": made}))
        return
    typer.echo(f"made {name}/ with {', '.join(made)}")
    typer.echo(f"next:  cd {name}; shoal plan study.py; shoal simulate study.py")


def create(folder: Path) -> list[str]:
    """Writes a project's files into a new folder; their names. SettingError if anything is there already."""
    if not re.fullmatch(r"\w[\w.-]*", folder.name):
        raise SettingError(
            f"a project's name is of letters, digits and _.-, such as heart-2026, and not {folder.name!r}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError(f"{folder} is there already, and nothing is overwritten: choose another name")
    made = {name: _filled(source, folder.name) for name, source in TEMPLATES.items()}
    made["policy.toml"] = Policy.sample().replace("\nallow = []\n", '\nallow = ["study"]\n')
    made |= {f"data/{site}.csv": _text(f"{site}.csv") for site in SITES}
    try:
        (folder / "data").mkdir(parents=True)
        for name, text in made.items():
            (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise SettingError(f"{folder} cannot be made: {error.strerror}") from error
    return list(made)


def _filled(name: str, project: str) -> str:
    return Template(_text(name)).substitute(name=project)


def _text(name: str) -> str:
    return files("shoal.cli").joinpath("project", name).read_text("utf-8")
