"""Early stop: a run ends when a metric does not improve any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from shoal.algorithms import Run
from shoal.settings import number, settle, whole
from shoal.simulation.callbacks.best import Best, Mode, begun, settled_mode
from shoal.simulation.callbacks.protocol import Beginning, Row


@dataclass(frozen=True)
class EarlyStop:
    """Stops a run when a metric has not improved for `patience` evaluations (Prechelt 1998).

    The metric is named as in the history, "test loss" or "loss", and looked at every `every` rounds of
    `simulate`. An improvement is more than `least`. Whether lower is better is known for losses, errors and
    accuracies; for others say `mode="min"` or `mode="max"`.

    The result holds the last model; `SaveModel(path, best="test loss")` beside it keeps the best.

    >>> EarlyStop("test accuracy", patience=3).mode
    'max'
    """

    metric: str
    patience: int = field(default=5, kw_only=True)
    least: float = field(default=0.0, kw_only=True)
    mode: Mode | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        settle(
            self,
            patience=whole(self.patience, "a run is stopped after 1 or more evaluations without progress", least=1),
            least=number(self.least, "the least improvement is 0 or more", lambda v: v >= 0),
            mode=settled_mode(self.metric, self.mode),
        )

    def begin(self, beginning: Beginning) -> _Waiting:
        """A listener that knows the rounds so far."""
        best = Best(self.metric, self.mode or "min", self.least)
        return _Waiting(self, beginning.every, beginning.plan.rounds, begun(best, beginning))


@dataclass
class _Waiting:
    stop: EarlyStop
    every: int
    rounds: int
    best: Best

    def after(self, rows: Sequence[Row], run: Run[Any]) -> str | None:
        self.best = best = self.best.after(rows[-1])
        if best.since < self.stop.patience:
            return None
        better = "under" if best.mode == "min" else "over"
        found = (
            "is not a number"
            if best.value is None
            else f"did not get {better} its {best.value:.6g} of round {best.round}"
        )
        return (
            f"stopped after round {int(run.round)} of {self.rounds}: {best.metric} {found} in {best.since} evaluations"
        )

    def close(self, rows: Sequence[Row]) -> None:
        pass
