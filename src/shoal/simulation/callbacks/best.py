"""The best value of a metric so far."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from shoal.errors import SettingError
from shoal.simulation.callbacks.protocol import Beginning, Row
from shoal.simulation.history import COUNTS

Mode = Literal["min", "max"]

LOWER = ("loss", "error", "perplexity", "mse", "rmse", "mae", "deviance", "brier score")
HIGHER = ("accuracy", "auc", "recall", "precision", "f1", "r2", "score")


@dataclass(frozen=True)
class Best:
    """A metric's best value so far, the round it is of, and how many values came since that were no better.

    Better is lower or higher by more than `least`.

    >>> best = Best("loss", "min").after({"round": 1, "loss": 0.5}).after({"round": 2, "loss": 0.6})
    >>> best.value, best.round, best.since
    (0.5, 1, 1)
    """

    metric: str
    mode: Mode
    least: float = 0.0
    value: float | None = None
    round: int = 0
    since: int = 0
    seen: int = 0
    """The last round that was looked at."""

    def after(self, row: Row) -> Best:
        """With one more row; one that was seen, or that measured nothing, changes nothing.

        SettingError if the row measured other metrics, and not this one.
        """
        if row["round"] <= self.seen:
            return self
        if self.metric not in row:
            self._refuse(row)
            return self
        value = float(row[self.metric])
        if self._better(value):
            return replace(self, value=value, round=row["round"], since=0, seen=row["round"])
        return replace(self, since=self.since + 1, seen=row["round"])

    def _better(self, value: float) -> bool:
        if self.value is None:
            return value == value  # NaN is no value to beat
        return value < self.value - self.least if self.mode == "min" else value > self.value + self.least

    def _refuse(self, row: Row) -> None:
        """SettingError if the row has metrics of this one's kind: a run may stop at a round that was not tested."""
        there = [name for name in row if name not in COUNTS]
        kind = "test " if self.metric.startswith("test ") else ""
        if self.value is None and any(name.startswith(kind) for name in there):
            raise SettingError(f"there is no metric {self.metric!r} in the history: there are {', '.join(there)}")


def begun(best: Best, beginning: Beginning) -> Best:
    """The best of the rounds that a run has behind it; SettingError if there is no test to measure the metric on."""
    if best.metric.startswith("test ") and not beginning.tested:
        raise SettingError(f"{best.metric!r} is measured on a test: give simulate test=...")
    for row in beginning.looked_at:
        best = best.after(row)
    return best


def settled_mode(metric: Any, mode: Any) -> Mode:
    """Whether lower or higher is better: as said, or by the metric's name; SettingError if neither tells."""
    if not isinstance(metric, str):
        raise SettingError(f"a metric is named as in the history, such as 'test loss', not {metric!r}")
    match mode:
        case "min" | "max":
            return mode
        case None if metric.lower().endswith(LOWER):
            return "min"
        case None if metric.lower().endswith(HIGHER):
            return "max"
        case None:
            raise SettingError(f"whether a lower {metric!r} is better is not known: say mode='min' or mode='max'")
        case _:
            raise SettingError(f"mode is 'min' or 'max', not {mode!r}")
