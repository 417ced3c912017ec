"""`shoal model RUN -o model.safetensors`: a run's model after its last closed round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.operating import FOLDER, Folder, Json, Run, Server, TokenFile, Trusted, connect
from shoal.cli.tables import print_json
from shoal.errors import SettingError

Output = Annotated[Path, typer.Option("--output", "-o", help="Where to save the model, as safetensors.")]


def command(
    run: Run, output: Output, folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None,
    ca: Trusted = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Save a run's model as it is after its last closed round."""
    with connect(folder, server, token_file, ca) as operator:
        found = operator.run(run)
        try:
            operator.model(found.id, output)
        except OSError as error:
            raise SettingError(f"the model cannot be saved as {output}: {error.strerror}") from error
    if as_json:
        print_json({"run": found.name, "round": found.round, "file": str(output), "bytes": output.stat().st_size})
    else:
        print(f"{output}: the model of {found.name} after {found.round} of {found.rounds} rounds")
