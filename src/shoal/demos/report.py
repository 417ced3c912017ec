"""The hospitals' study for people and for programs: two tables, a picture, plain data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.demos.hospitals import Line, Study
from shoal.extras import needed

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
SHORT = {"VA Long Beach": "VA", "Switzerland": "Switz."}


NOTE = (
    "alone: one hospital's model, and its scaling, used everywhere. federated: each hospital scales by its own "
    "patients. standardised: by one round of federated mean and variance. pooled: what none of them may do. "
    "± is the deviation over the splits."
)


def tables(study: Study) -> tuple[Table, Table, Table]:
    """Accuracy and AUC of every way to train; and every hospital judged by models that never saw it."""
    title = f"of models of heart disease on held-out patients, {study.seeds} splits, {study.rounds} rounds"
    return ways(study, "accuracy", f"Accuracy {title}"), ways(study, "auc", f"AUC {title}"), _held_out(study)


def data(study: Study) -> dict[str, Any]:
    """The rows of both tables as plain data: for each figure its mean and its deviation over the seeds."""
    return {
        "demo": "hospitals",
        "seeds": study.seeds,
        "rounds": study.rounds,
        "rows": [_plain(line) for line in study.lines],
        "held out": [_plain(line) for line in study.held_out],
    }


def picture(study: Study, path: Path) -> None:
    """Accuracy of every way, over all patients and by hospital, saved as an image."""
    figures = needed("matplotlib.figure", "plot")
    figure = figures.Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.add_subplot()
    ways = study.lines[::-1]
    for place, line in enumerate(ways):
        mean, deviation = line.accuracy["all"]
        axes.barh(place, mean, xerr=deviation, color=_color(line.way), height=0.72, error_kw={"alpha": 0.5})
        axes.text(0.256, place, f"{mean:.3f}", va="center", color="white", fontsize=9, fontweight="bold")
        for mark, name in zip("os^D", HOSPITALS, strict=True):
            label = name if place == 0 else None
            axes.plot(line.accuracy[name][0], place, mark, color="black", ms=5, mfc="none", label=label)
    axes.set_yticks(range(len(ways)), [line.way for line in ways])
    axes.set(xlim=(0.25, 1.0), xlabel=f"accuracy on held-out patients (bar: all patients, {study.seeds} splits)")
    axes.set_title("Heart disease at four hospitals: who may learn from whom", loc="left", fontsize=11)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=9, title="at")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _color(way: str) -> str:
    if way == "pooled":
        return "#7f8c8d"
    return "#1f6f8b" if way.endswith(("standardised", "fine-tuned")) else "#c58b5a" if way == "federated" else "#a9b8c0"


def ways(study: Study, metric: str, title: str) -> Table:
    """One metric of every way, over all patients and at each hospital."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("trained", no_wrap=True)
    table.add_column("all patients", justify="right", no_wrap=True)
    for name in HOSPITALS:
        table.add_column(SHORT.get(name, name), justify="right")
    for line in study.lines:
        figures = _figures(line, metric)
        style = "bold" if line.way == "federated, standardised" else "dim" if line.way == "pooled" else ""
        table.add_row(line.way, _figure(figures["all"]), *(_mean(figures[name]) for name in HOSPITALS), style=style)
    return table


def _held_out(study: Study) -> Table:
    table = Table(
        title="A hospital that took no part, judged on all its patients",
        title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in ("hospital", "model of"):
        table.add_column(name)
    for name in ("accuracy", "AUC"):
        table.add_column(name, justify="right")
    for line in study.held_out:
        hospital, way = line.way.split(": ")
        federation = way.startswith("the three")
        figures = (_figure(line.accuracy[hospital]), _figure(line.auc[hospital]))
        table.add_row(hospital if federation else "", way, *figures, style="bold" if federation else "")
    return table


def _plain(line: Line) -> dict[str, Any]:
    def figures(values: dict[str, tuple[float, float]]) -> dict[str, Any]:
        return {
            name: {"mean": None if mean != mean else mean, "deviation": None if mean != mean else deviation}
            for name, (mean, deviation) in values.items()
        }

    return {"trained": line.way, "accuracy": figures(line.accuracy), "auc": figures(line.auc)}


def _figure(value: tuple[float, float]) -> str:
    mean, deviation = value
    return "-" if mean != mean else f"{mean:.3f} ± {deviation:.3f}"


def _mean(value: tuple[float, float]) -> str:
    return "-" if value[0] != value[0] else f"{value[0]:.3f}"


def _figures(line: Line, metric: str) -> dict[str, tuple[float, float]]:
    return line.accuracy if metric == "accuracy" else line.auc
