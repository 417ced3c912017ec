"""The model on disk while a run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoal.algorithms import Run
from shoal.errors import SettingError
from shoal.model_file import check_model_place, write_model
from shoal.plan import Plan
from shoal.settings import settle, whole
from shoal.simulation.callbacks.best import Best, Mode, begun, settled_mode
from shoal.simulation.callbacks.protocol import Beginning, Row


@dataclass(frozen=True)
class SaveModel:
    """Saves the model every `every` rounds and after the last, or with `best` whenever that metric improves.

    The file is safetensors with the model's named arrays, whole at any moment; `load_vector` reads it. Without
    `every` it is when `simulate` evaluates, and so it is with `best`, which is named as in the history.

    >>> SaveModel("best.safetensors", best="test accuracy").mode
    'max'
    """

    path: str | Path
    every: int | None = field(default=None, kw_only=True)
    best: str | None = field(default=None, kw_only=True)
    mode: Mode | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.every is not None:
            settle(self, every=whole(self.every, "a model is saved every 1 or more rounds", least=1))
        if self.best is None and self.mode is not None:
            raise SettingError("`mode` is of `best`, the metric by which the best model is known: say which")
        if self.best is not None:
            settle(self, mode=settled_mode(self.best, self.mode))
            if self.every is not None:
                raise SettingError("the best model is looked for when simulate evaluates: leave out `every` or `best`")

    def begin(self, beginning: Beginning) -> _Latest | _BestOnly:
        """A listener that saves; SettingError if there is no model, CallbackError if nothing can be written."""
        plan, path = beginning.plan, Path(self.path)
        check_model_place(path, plan)
        if self.best is None:
            return _Latest(path, plan, self.every or beginning.every)
        return _BestOnly(path, plan, beginning.every, begun(Best(self.best, self.mode or "min"), beginning))


@dataclass(frozen=True)
class _Latest:
    path: Path
    plan: Plan
    every: int

    def after(self, rows: Sequence[Row], run: Run[Any]) -> None:
        write_model(self.path, run.state.vector, plan=self.plan, round=int(run.round))

    def close(self, rows: Sequence[Row]) -> None:
        pass


@dataclass
class _BestOnly:
    path: Path
    plan: Plan
    every: int
    best: Best

    def after(self, rows: Sequence[Row], run: Run[Any]) -> None:
        self.best = self.best.after(rows[-1])
        if self.best.round == int(run.round):
            write_model(self.path, run.state.vector, plan=self.plan, round=int(run.round))

    def close(self, rows: Sequence[Row]) -> None:
        pass
