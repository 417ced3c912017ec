"""`shoal logs [RUN]`: the audit log, who did what."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer

from shoal.cli.operating import FOLDER, Folder, Json, Server, TokenFile, Trusted, connect
from shoal.cli.tables import moment, plain, print_json


def command(
    run: Annotated[str | None, typer.Argument(help="A run's name or id; without it, everything.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows, until Ctrl-C.")] = False,
    folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Print the server's audit log."""
    with connect(folder, server, token_file, ca) as operator, suppress(KeyboardInterrupt):
        found = None if run is None else operator.run(run)
        for event in operator.events(follow=follow):
            if found is not None and event.object not in (found.id, found.name):
                continue
            if as_json:
                print_json(event)
            else:
                said = f"{event.actor}: {event.action} {event.object}{f' ({event.detail})' if event.detail else ''}"
                outcome = "" if event.outcome == "done" else f", {event.outcome}"
                typer.echo(f"{moment(event.time)}  {plain(said + outcome)}")
