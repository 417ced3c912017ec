"""`shoal pause`, `shoal resume` and `shoal cancel`: what is to become of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from shoal.cli.operating import FOLDER, Folder, Json, Run, Server, TokenFile, Trusted, connect
from shoal.cli.tables import plain, print_json


def pause(
    run: Run, folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Let a run's open round end, and open no other."""
    _command("pause", run, (folder, server, token_file, ca), as_json)


def resume(
    run: Run, folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Go on with a run that is paused, or that failed."""
    _command("resume", run, (folder, server, token_file, ca), as_json)


def cancel(
    run: Run, folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """End a run now; the models of its closed rounds stay."""
    _command("cancel", run, (folder, server, token_file, ca), as_json)


def _command(
    what: Literal["pause", "resume", "cancel"],
    run: str,
    where: tuple[Path, str | None, Path | None, Path | None],
    as_json: bool,
) -> None:
    with connect(*where) as operator:
        found = operator.command(run, what)
    if as_json:
        print_json(found)
    else:
        print(plain(f"{found.name} is {found.status}{f': {found.reason}' if found.reason else ''}"))
