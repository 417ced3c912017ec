"""The `shoal` command: one file a subcommand, each parses, calls one function and prints."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import jax
import typer

from shoal.cli import (
    clients,
    commands,
    demo,
    join,
    ledger,
    logs,
    model,
    new,
    plan,
    policy,
    privacy,
    roster,
    runs,
    serve,
    show,
    simulate,
    token,
)
from shoal.data.packages import cache
from shoal.errors import ShoalError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Federated learning: models travel, rows stay.")  # fmt: skip
app.add_typer(demo.app, name="demo")
app.command("new")(new.command)
app.command("simulate")(simulate.command)
app.command("plan")(plan.command)
app.command("privacy")(privacy.command)
app.command("serve")(serve.command)
app.command("join")(join.command)
app.command("ledger")(ledger.command)
app.add_typer(policy.app, name="policy")
app.command("roster")(roster.command)
app.command("token")(token.command)
app.command("runs")(runs.command)
app.command("show")(show.command)
app.command("logs")(logs.command)
app.command("pause")(commands.pause)
app.command("resume")(commands.resume)
app.command("cancel")(commands.cancel)
app.command("model")(model.command)
app.command("clients")(clients.clients)
app.command("revoke")(clients.revoke)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shoal {version('shoal')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """What holds for every subcommand."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def main() -> None:
    """Runs the command; a mistake becomes one sentence on stderr and exit status 2, never a stack trace."""
    try:
        app()
    except ShoalError as error:
        print(f"shoal: {error}", file=sys.stderr)
        sys.exit(2)
