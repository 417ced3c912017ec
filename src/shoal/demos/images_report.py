"""The images' study for people and for programs: a table, a picture, plain data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.demos.images import LAST, Study
from shoal.extras import needed

COLORS = ("#1f6f8b", "#c58b5a", "#7a5195", "#7f8c8d")
NOTE = (
    "labels: how many the median client holds. accuracy: on the test images, mean of the last "
    f"{LAST} rounds. pooled: all rows in one place, as many steps a round."
)


def table(study: Study) -> Table:
    """A row for each way to deal the rows."""
    setting, (train, test) = study.setting, study.examples
    title = (
        f"{study.data}: {train:,} images at {setting.clients} clients, {setting.cohort} in each of {setting.rounds} "
        f"rounds; {test:,} to test"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("dealt", no_wrap=True)
    for name in ("labels", *(f"rounds to {target:.0%}" for target in setting.targets), "accuracy", "below pooled"):
        table.add_column(name, justify="right")
    for line in study.lines:
        rounds = [line.rounds_to(target) for target in setting.targets]
        shown = (*("-" if count is None else str(count) for count in rounds), f"{line.final:.4f}")
        if line is study.pooled:
            table.add_row(line.way, "", *shown, "", style="dim")
        else:
            table.add_row(line.way, f"{line.labels:g}", *shown, f"{study.pooled.final - line.final:.4f}")
    return table


def data(study: Study) -> dict[str, Any]:
    """The table as plain data, with the accuracy after every round."""
    train, test = study.examples
    return {
        "demo": "images",
        "data": study.data,
        "train": train,
        "test": test,
        "setting": asdict(study.setting),
        "rows": [
            {
                "dealt": line.way,
                "labels": line.labels,
                "rounds to": {str(target): line.rounds_to(target) for target in study.setting.targets},
                "accuracy": line.final,
                "below pooled": study.pooled.final - line.final,
                "by round": list(line.accuracy),
            }
            for line in study.lines
        ],
    }


def picture(study: Study, path: Path) -> None:
    """Who holds which labels in each partition, and test accuracy over the rounds, saved as an image."""
    figures = needed("matplotlib.figure", "plot")
    figure = figures.Figure(figsize=(10.0, 4.6), layout="constrained")
    dealt = study.lines[:-1]
    panels = figure.add_gridspec(len(dealt), 2, width_ratios=(1, 1.5))
    for place, line in enumerate(dealt):
        axes = figure.add_subplot(panels[place, 0])
        axes.imshow(line.held.T, aspect="auto", origin="lower", cmap="Blues", interpolation="nearest")
        axes.set_title(line.way, loc="left", fontsize=10, color=COLORS[place])
        axes.set(ylabel="label", xticks=[], yticks=range(0, line.held.shape[1], 3))
        axes.set_xlabel(f"{study.setting.clients} clients" if line is dealt[-1] else "")
    curves = figure.add_subplot(panels[:, 1])
    for line, color in zip(study.lines, COLORS, strict=True):
        curves.plot(range(1, len(line.accuracy) + 1), line.accuracy, color=color, label=line.way)
    for target in study.setting.targets:
        curves.axhline(target, color="black", lw=0.8, ls=":", alpha=0.6)
    low = min(line.final for line in study.lines)
    curves.set(xlabel="round", ylim=(max(0.0, 2 * low - 1.05), 1.0), title=f"{study.data}: accuracy on test images")
    curves.spines[["top", "right"]].set_visible(False)
    curves.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=130)
