"""What epsilons cost on images, for people and for programs: a table, plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.demos.images import LAST
from shoal.demos.images_private import DELTA, Utility

NOTE = (
    f"epsilon at delta {DELTA:g}: between runs with and without one client, all its images. noise: times what one "
    "client moves the sum by; simulated noise, drawn from the seed, which measures what privacy costs and protects "
    f"nobody. accuracy: on the test images, mean of the last {LAST} rounds."
)


def table(utility: Utility) -> Table:
    """A row for each epsilon."""
    setting, (train, test) = utility.setting, utility.examples
    title = (
        f"{utility.data}: {train:,} images at {setting.clients:,} clients, each in one of {setting.rounds} rounds with "
        f"probability {setting.rate:g}; {test:,} to test"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for name in ("epsilon", "spent", "noise", "accuracy", "below no noise"):
        table.add_column(name, justify="right")
    plain = utility.lines[-1]
    for line in utility.lines:
        if line.spent is None:
            table.add_row("no noise", "", "", f"{line.accuracy:.4f}", "", style="dim")
        else:
            figures = (f"{line.spent.epsilon:.4g}", f"{line.multiplier:.4g}", f"{line.accuracy:.4f}")
            table.add_row(f"{line.epsilon:g}", *figures, f"{plain.accuracy - line.accuracy:.4f}")
    return table


def data(utility: Utility) -> dict[str, Any]:
    """The same as plain data."""
    train, test = utility.examples
    return {
        "demo": "images",
        "data": utility.data,
        "train": train,
        "test": test,
        "setting": asdict(utility.setting),
        "noise": "simulated",
        "rows": [asdict(line) for line in utility.lines],
    }
