"""`shoal demo`: complete studies on real data."""

from __future__ import annotations

import typer

from shoal.cli import demo_hospitals, demo_images, demo_keyboard

app = typer.Typer(no_args_is_help=True, help="Complete studies on real data.")


@app.callback()
def demos() -> None:
    """Complete studies on real data."""


app.command("hospitals")(demo_hospitals.command)
app.command("images")(demo_images.command)
app.command("keyboard")(demo_keyboard.command)
