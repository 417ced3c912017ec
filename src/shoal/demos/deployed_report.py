"""The deployed demo for people and for programs: two tables, plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.demos.hospitals_network import Deployed, Found, Left

LOOK = {"title_justify": "left", "title_style": "bold", "box": SIMPLE_HEAD, "padding": (0, 1, 0, 0)}


def tables(deployed: Deployed) -> tuple[Table, ...]:
    """What the server found, beside what `simulate` finds; what it could see; what left, by each hospital's ledger."""
    return _found(deployed), _seen(deployed), left(deployed.left)


def data(deployed: Deployed) -> dict[str, Any]:
    """The same as plain data."""
    return {"demo": "hospitals", "equal": deployed.equal, **asdict(deployed)}


def verdict(deployed: Deployed) -> str:
    """A sentence: whether network and simulation agree."""
    if deployed.equal:
        return f"{_lost(deployed)}The model that was trained over the network is that of `simulate`, to the bit."
    return "The model that was trained over the network is NOT that of `simulate`: please report this."


def _lost(deployed: Deployed) -> str:
    """Who was killed, and what that cost."""
    if (killed := deployed.killed) is None:
        return ""
    had = "had no part in" if killed.absent else "still counted in"
    return (
        f"{killed.hospital} was killed in round {killed.round} before its message of the stage {killed.stage!r} left, "
        f"{had} that round, and was back in the next one. "
    )


def _found(deployed: Deployed) -> Table:
    network, simulated = deployed.network, deployed.simulated
    table: Table = Table(title=f"Four hospitals over TLS, {deployed.seconds:.1f} s", **LOOK)  # type: ignore[arg-type]
    table.add_column("run", no_wrap=True)
    table.add_column("learned")
    for name in ("over the network", "in simulate"):
        table.add_column(name, justify="right")
    rows = (
        ("1 statistics", "patients learned from", *(f"{found.patients}" for found in (network, simulated))),
        ("", "mean age, deviation", *(f"{f.means[0]:.3f}, {f.deviations[0]:.3f}" for f in (network, simulated))),
        (f"2 training, {deployed.rounds} rounds", "length of the model", *map(_norm, (network, simulated))),
        ("3 evaluation", "accuracy, held out", *_measured("accuracy", network, simulated)),
        ("", "loss, held out", *_measured("loss", network, simulated)),
    )
    for row in rows:
        table.add_row(*row, style="bold" if "accuracy" in row[1] else "")
    return table


def _seen(deployed: Deployed) -> Table:
    table: Table = Table(title="What the server could see", **LOOK)  # type: ignore[arg-type]
    for name in ("run", "sum", "of one hospital", "of all together"):
        table.add_column(name, no_wrap=name == "run")
    sums = "its count, its sums, its sums of squares", "the count, the sums, the sums of squares"
    steps = "its change of the model in each round, its loss", "the mean change in each round, the loss"
    measured = "its number of held-out patients, its hits, its loss", "accuracy, loss"
    for run, (one, together) in zip(("1 statistics", "2 training"), (sums, steps), strict=True):
        table.add_row(run, *(("secure", "nothing", together) if deployed.secure else ("plain", one, together)))
    table.add_row("3 evaluation", "plain", *measured)
    return table


def left(hospitals: tuple[Left, ...]) -> Table:
    """What left each hospital, by its own ledger."""
    table: Table = Table(title="What left each hospital, by its own ledger", **LOOK)  # type: ignore[arg-type]
    table.add_column("hospital", no_wrap=True)
    for name in ("patients", "results", "their bytes", "messages", "all bytes"):
        table.add_column(name, justify="right")
    for said in hospitals:
        figures = (said.patients, said.results, said.result_bytes, said.messages, said.message_bytes)
        table.add_row(said.name, *(f"{figure:,}" for figure in figures))
    return table


def _norm(found: Found) -> str:
    return f"{sum(number * number for number in found.vector) ** 0.5:.6f}"


def _measured(name: str, *found: Found) -> tuple[str, ...]:
    return tuple(f"{one.measured[name]:.4f}" for one in found)
