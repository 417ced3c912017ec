"""A log of the rounds for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.algorithms import Run
from shoal.extras import needed
from shoal.simulation.callbacks.protocol import Beginning, Row
from shoal.simulation.history import COUNTS
from shoal.whole_file import check_place

ENDING = ".shoal"
"""How the names of our event files end; those of others in the same folder stay."""


@dataclass(frozen=True)
class TensorBoard:
    """Writes every number of the history as a scalar, with its round as the step, for `tensorboard --logdir folder`.

    "test loss" is the scalar "test/loss", "loss" is "train/loss", the clients are "rounds/clients"; what noise there is
    is a text. A folder holds one run: a new one replaces the events of the old, a run that goes on from a checkpoint
    writes its events anew. Needs the extra `tensorboard`.

    >>> TensorBoard("runs/first")
    TensorBoard(folder='runs/first')
    """

    folder: str | Path

    def begin(self, beginning: Beginning) -> _Scalars:
        """A listener that writes; CallbackError if nothing can be written."""
        board = needed("tensorboardX", "tensorboard")
        folder = Path(self.folder)
        check_place(folder / "events")
        for old in folder.glob(f"events.out.tfevents.*{ENDING}"):
            old.unlink()
        scalars = _Scalars(board.SummaryWriter(str(folder), filename_suffix=ENDING))
        scalars.add(beginning.rows)
        return scalars


class _Scalars:
    every = None

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self._words: dict[str, str] = {}

    def after(self, rows: Sequence[Row], run: Run[Any]) -> None:
        self.add(rows)

    def close(self, rows: Sequence[Row]) -> None:
        self.add(rows)
        self._writer.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Writes the rows' numbers."""
        for row in rows:
            for name, value in row.items():
                if isinstance(value, str):
                    if self._words.get(name) != value:
                        self._writer.add_text(_tag(name), value, row["round"])
                    self._words[name] = value
                elif name != "round":
                    self._writer.add_scalar(_tag(name), float(value), row["round"])
        self._writer.flush()


def _tag(name: str) -> str:
    """A column's name as TensorBoard groups them."""
    group = "rounds" if name in COUNTS else "test" if name.startswith("test ") else "train"
    return f"{group}/{name.removeprefix('test ').replace(' ', '_')}"
