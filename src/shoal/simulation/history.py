"""What happened, round by round: prints, plots, becomes a table."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from shoal.extras import needed

SHOWN = 20
"""How many rounds are printed; the others are in `rows`."""

COUNTS = ("round", "clients", "rejected", "lost", "waited", "released", "noise", "seconds")
"""What is told of rounds beside metrics."""


@dataclass(frozen=True)
class History:
    """A row for each round: the round, the clients that contributed, those rejected, metrics, and seconds.

    Where clients come and go: `lost`, how many left before their contribution arrived, and `waited`, how often the
    round found too few. Where a plan has noise: `noise`, what kind of it.

    Metrics of training are named as the model names them, those of evaluation with "test" before.

    >>> history = History(({"round": 1, "clients": 2, "rejected": 0, "loss": 0.5, "seconds": 0.1},))
    >>> history.rows[0]["loss"], len(history), history.column("loss")
    (0.5, 1, [0.5])
    """

    rows: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    @property
    def names(self) -> list[str]:
        """The columns, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str) -> list[Any]:
        """A column's values, of the rounds that have one."""
        return [row[name] for row in self.rows if name in row]

    @property
    def noise(self) -> str | None:
        """What is to be known of the noise of a simulation, as a sentence; None if there was none."""
        kinds = list(dict.fromkeys(self.column("noise")))
        return f"{'; '.join(kinds)}: drawn from the seed, protects nobody" if kinds else None

    def __str__(self) -> str:
        out = io.StringIO()
        Console(file=out, width=110, no_color=True).print(self)
        return out.getvalue().rstrip()

    def __rich__(self) -> Group:
        return Group(self.table(), *([f"noise  {self.noise}"] if self.noise else []))

    def table(self, shown: int = SHOWN) -> Table:
        """A table of at most `shown` rounds, evenly spread, the last among them; without the `noise`."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        names = [name for name in self.names if name != "noise"]
        for name in names:
            table.add_column(name, justify="right")
        for row in _spread([r for r in self.rows if self._evaluated(r)] or self.rows, shown):
            table.add_row(*(_text(row.get(name)) for name in names))
        return table

    def _evaluated(self, row: dict[str, Any]) -> bool:
        return any(name.startswith("test ") for name in row)

    def to_pandas(self) -> Any:
        """A pandas data frame, a row for each round."""
        return needed("pandas", "pandas").DataFrame(list(self.rows))

    def plot(self, path: str | Path | None = None) -> Any:
        """A matplotlib figure with every metric over the rounds, saved if a path is given."""
        figures = needed("matplotlib.figure", "plot")
        metrics = sorted({name.removeprefix("test ") for name in self._metrics()})
        figure = figures.Figure(figsize=(4.5 * max(len(metrics), 1), 3.2), layout="constrained")
        for place, metric in enumerate(metrics):
            axes = figure.add_subplot(1, len(metrics), place + 1)
            for name in (metric, f"test {metric}"):
                points = [(row["round"], row[name]) for row in self.rows if name in row]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else "")
            axes.set(xlabel="round", title=metric)
            axes.grid(alpha=0.3)
            axes.legend(frameon=False)
        if self.noise is not None:
            figure.supxlabel(f"noise: {self.noise}", fontsize="x-small")
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure

    def _metrics(self) -> list[str]:
        return [name for name in self.names if name not in COUNTS]


def _spread(rows: Sequence[dict[str, Any]], shown: int) -> list[dict[str, Any]]:
    if len(rows) <= shown:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (shown - 1))] for i in range(shown)]


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
