"""What every command for operators takes: which server, and whose token."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.errors import SettingError
from shoal.operator import Operator, token_of

FOLDER = Path(".shoal/server")

Run = Annotated[str, typer.Argument(help="A run's name or id.")]
Folder = Annotated[Path, typer.Option("--folder", help="The folder of a server on this machine.")]
Server = Annotated[str | None, typer.Option("--server", help="The URL of a server on another machine.")]
TokenFile = Annotated[
    Path | None,
    typer.Option("--operator-token-file", help="A file with the operator's or viewer's token, if not the folder's."),
]
Trusted = Annotated[
    Path | None, typer.Option("--ca", help="A file with the certificate of --server or of its authority, in PEM.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(folder: Path, server: str | None, token_file: Path | None, trusted: Path | None) -> Operator:
    """The server that is meant: the one at a URL, or else the one of a folder."""
    if server is None:
        if trusted is not None:
            raise SettingError("--ca goes with --server: a server on this machine is trusted by its folder")
        return Operator.at(folder, token_file=token_file)
    if token_file is None:
        raise SettingError("--server takes --operator-token-file: a copy of operator.token from the server's folder")
    return Operator(server, token=token_of(token_file), trusted=trusted)
