"""The `shoal` command: one file a subcommand, each parses, calls one function and prints."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from shoal.errors import ShoalError

COMMANDS = {
    "demo": "demo:app", "new": "new:command", "simulate": "simulate:command", "plan": "plan:command",
    "privacy": "privacy:command", "serve": "serve:command", "join": "join:command", "ledger": "ledger:command",
    "policy": "policy:app", "roster": "roster:command", "token": "token:command", "runs": "runs:command",
    "show": "show:command", "logs": "logs:command", "pause": "commands:pause", "resume": "commands:resume",
    "cancel": "commands:cancel", "model": "model:command", "clients": "clients:clients", "revoke": "clients:revoke",
}  # fmt: skip
"""The subcommands: the module of each in `shoal.cli`, and what it is there."""


class Commands(TyperGroup):
    """The subcommands, each imported when it is asked for: most need no JAX, and then begin in a moment."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: dict[str, Any] = dict.fromkeys(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A subcommand; None for a name that is none."""
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _imported(cmd_name)
        return self.commands.get(cmd_name)


def _imported(name: str) -> Any:
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(import_module(f"shoal.cli.{module}"), attribute)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name)(found)
    return get_group(alone).commands[name]


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Federated learning: models travel, rows stay.")  # fmt: skip


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
    if "jax" in sys.modules:  # the subcommand was found, and so imported, before this
        _keep_what_is_compiled()


def _keep_what_is_compiled() -> None:
    import jax

    from shoal.data.packages import cache

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
