"""`shoal token`: with what a site enrols."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli.durations import seconds
from shoal.cli.operating import FOLDER, Folder, Json, Server, TokenFile, Trusted, connect
from shoal.cli.tables import moment, print_json


def command(
    uses: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many clients may enrol with it.")] = 1,
    label: Annotated[str, typer.Option(help="For whom it is; shown beside the clients that enrol with it.")] = "",
    lasts: Annotated[str, typer.Option(help="For how long it may be used: 90s, 30m, 1h, 7d.")] = "7d",
    folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Make a token for a site: it is printed once and not kept."""
    lasts_s = seconds(lasts)
    with connect(folder, server, token_file, ca) as operator:
        made = operator.token(label=label, uses=uses, lasts_s=lasts_s)
    if as_json:
        print_json(made)
    else:
        print(made.token)
        clients = "one client" if uses == 1 else f"{uses} clients"
        typer.echo(f"for {clients}, until {moment(made.expires)}: give it to the site by a safe way", err=True)
