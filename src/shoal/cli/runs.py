"""`shoal runs`: every run of a server."""

from __future__ import annotations

from shoal.cli.operating import FOLDER, Folder, Json, Server, TokenFile, Trusted, connect
from shoal.cli.tables import moment, print_json, show


def command(
    folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """List a server's runs, the newest first."""
    with connect(folder, server, token_file, ca) as operator:
        runs = operator.runs()
    if as_json:
        print_json(runs)
        return
    rows = [
        (run.name, run.id, run.status, f"{run.round} of {run.rounds}", str(run.there), moment(run.updated),
         run.waits_for or run.reason)
        for run in runs
    ]  # fmt: skip
    show(("run", "id", "status", "rounds", "there", "changed", "why"), rows, nothing="There is no run yet.")
