"""`shoal clients` and `shoal revoke CLIENT`: who is enrolled, and who is not any more."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.cli.operating import FOLDER, Folder, Json, Server, TokenFile, Trusted, connect
from shoal.cli.tables import moment, print_json, show
from shoal.server.views import ClientView


def clients(
    folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the clients that are enrolled, and what they do."""
    with connect(folder, server, token_file, ca) as operator:
        found = operator.clients()
    _print(found, as_json)


def revoke(
    client: Annotated[str, typer.Argument(help="A client's name or id.")],
    folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Take a client's rights away, from now on."""
    with connect(folder, server, token_file, ca) as operator:
        found = operator.revoke(client)
    _print([one for one in found if client in (one.id, one.name)], as_json)


def _print(found: list[ClientView], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (one.name, one.id, _state(one), one.label, moment(one.enrolled), moment(one.last_seen), str(len(one.tasks)))
        for one in found
    ]
    show(("client", "id", "status", "token", "enrolled", "last seen", "tasks"), rows, nothing="No client is enrolled.")


def _state(one: ClientView) -> str:
    return one.status if one.status != "active" else "there" if one.online else "away"
