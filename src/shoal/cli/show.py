"""`shoal show RUN`: what became of a run so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console

from shoal.cli.operating import FOLDER, Folder, Json, Run, Server, TokenFile, Trusted, connect
from shoal.cli.tables import moment, plain, print_json
from shoal.server.views import RoundView, RunView


def command(
    run: Run, folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Show a run: its status, what it waits for, and its rounds."""
    with connect(folder, server, token_file, ca) as operator:
        found = operator.run(run)
    if as_json:
        print_json(found)
        return
    for name, text in lines(found):
        print(f"{name:<10}{plain(text)}".rstrip())
    closed = [row(one) for one in found.history if one.status == "closed"]
    if closed:
        from shoal.simulation.history import History  # which brings JAX, and takes a second

        print()
        Console().print(History(tuple(closed)))


def lines(run: RunView) -> Iterator[tuple[str, str]]:
    """What is said of a run beside its rounds."""
    yield "run", f"{run.name} ({run.id})"
    yield "plan", run.plan_digest
    yield "status", f"{run.status}{f': {run.reason}' if run.reason else ''}"
    if run.waits_for:
        yield "waits for", run.waits_for
    yield "rounds", f"{run.round} of {run.rounds} closed"
    yield "clients", f"{run.there} there"
    if run.tasks:
        yield "tasks", ", ".join(f"{count} {status}" for status, count in sorted(run.tasks.items()))
    tried = sum(one.status == "abandoned" for one in run.history)
    if tried:
        yield "abandoned", f"{tried} attempts"
    yield "begun", moment(run.created)
    yield "changed", moment(run.updated)


def row(one: RoundView) -> dict[str, Any]:
    """A closed round as a row of a history."""
    rejected, seconds = sum(one.rejected.values()), (one.closed or one.opened) - one.opened
    return {"round": one.round + 1, "clients": one.clients or 0, "rejected": rejected, **one.metrics,
            "seconds": seconds}  # fmt: skip
