"""`shoal roster`: this site's public key for the others, and theirs put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.homes import only_home
from shoal.client.identity import Home
from shoal.client.roster import merged, read_roster, roster_text
from shoal.errors import SettingError
from shoal.wire.signing import public_key_of

Files = Annotated[list[Path] | None, typer.Argument(help="Rosters of other sites; they are printed as one.")]
HomeFolder = Annotated[Path | None, typer.Option("--home", help="The client's home; the one in ~/.shoal if not said.")]
Name = Annotated[str | None, typer.Option(help="This site's name, if it has not enrolled yet.")]


def command(files: Files = None, home: HomeFolder = None, name: Name = None) -> None:
    """Print this site's name and public key, for the other sites; or, of FILES, one roster of all."""
    if files:
        if home is not None or name is not None:
            raise SettingError("--home and --name are for this site's own line: leave them out, or leave out the files")
        sites = merged([(str(file), read_roster(file)) for file in files])
    else:
        sites = _own(Home(home or only_home()), name)
    typer.echo(roster_text(sites), nl=False)


def _own(home: Home, name: str | None) -> dict[str, bytes]:
    """This site's line. A home that is new gets its key now."""
    identity = home.identity
    if identity is not None and name not in (None, identity.name):
        raise SettingError(f"{home.folder} is enrolled as {identity.name}, and not as {name}")
    name = name if identity is None else identity.name
    if name is None:
        raise SettingError(f"{home.folder} is not enrolled yet: say with --name what this site will be called")
    return merged([(f"--name {name}", {name: public_key_of(home.private_key)})])
