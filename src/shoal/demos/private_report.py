"""The hospitals with an epsilon, for people and for programs: tables, what was spent, plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from shoal.demos import report
from shoal.demos.deployed_report import LOOK, left
from shoal.demos.hospitals_private import Private
from shoal.demos.hospitals_private_network import DRAWS, PrivatelyDeployed

UNIT = (
    "Epsilon is for a hospital as a whole, one of four: the noise is about as long as what the four learn together. "
    "Nothing else is released: means and deviations are what a physician would name, not measured ones. Rounds and "
    "norm were chosen on these data, which a real study may not do, or pays for."
)
SIMULATED = (
    "simulated noise: drawn from the seed, it measures what privacy costs and protects nobody. standardised: by "
    "measured means, 50 rounds. scaled by what is meant: by a physician's. clipped: few rounds, each hospital's change "
    "shortened to the same norm. ± is the deviation over the splits."
)
OUTSIDE = (
    "The noise is of the operating system, another for each closing of a round. Held-out patients were counted by the "
    "demo, which holds all four tables: such a figure would cost its own part of epsilon."
)


def tables(private: Private) -> tuple[Table, Table]:
    """Accuracy and AUC of every way to train."""
    study = private.study
    title = f"of models of heart disease on held-out patients, {study.seeds} splits"
    return report.ways(study, "accuracy", f"Accuracy {title}"), report.ways(study, "auc", f"AUC {title}")


def data(private: Private) -> dict[str, Any]:
    """The same as plain data."""
    rows = {name: value for name, value in report.data(private.study).items() if name != "held out"}
    return {**rows, "noise": "simulated", "spent": asdict(private.spent)}


def deployed_tables(found: PrivatelyDeployed) -> tuple[Table, Table]:
    """What the server's model is worth, beside simulated ones and one without noise; and what left each hospital."""
    title = f"Four hospitals over TLS, {found.terms.rounds} rounds with noise, {found.seconds:.1f} s"
    table: Table = Table(title=title, **LOOK)  # type: ignore[arg-type]
    table.add_column("model of", no_wrap=True)
    table.add_column("accuracy, held out", justify="right")
    mean, deviation = found.simulated
    sees = "sums of hospitals" if found.terms.secure else "each hospital's change"
    table.add_row(f"the network (its server sees {sees})", f"{found.network:.3f}", style="bold")
    table.add_row(f"simulate, simulated noise, {DRAWS} draws", f"{mean:.3f} ± {deviation:.3f}")
    table.add_row("simulate, no noise", f"{found.without_noise:.3f}", style="dim")
    return table, left(found.left)


def deployed_data(found: PrivatelyDeployed) -> dict[str, Any]:
    """The same as plain data."""
    return {"demo": "hospitals", "noise": "the operating system's", **asdict(found)}
