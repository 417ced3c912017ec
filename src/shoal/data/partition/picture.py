"""What a partition did: how many rows of each label every client holds, as a picture and as a table."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from rich.console import Console
from rich.table import Table

from shoal.data.population import Column, Population
from shoal.errors import DataError
from shoal.extras import needed

BARS = 40
"""Up to so many clients are bars; more are a heat map."""
DRAWN = 200
"""At most so many clients are drawn, evenly spread."""
LISTED = 20
"""At most so many clients are rows of the table, evenly spread."""
LABELS = 50
"""At most so many labels are told apart."""


def picture(population: Population, path: str | Path | None = None, *, label: str = "y") -> Any:
    """A matplotlib figure: the labels that each client holds, and how large clients are; saved if a path is given.

    DataError if the column is no label: numbers of more than 50 kinds.
    """
    figures = needed("matplotlib.figure", "plot")
    places = _spread(len(population), DRAWN)
    labels, held = _held(population, label, places)
    figure = figures.Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2.2, 1))
    if len(places) <= BARS:
        _bars(left, held, labels, [population.names[place] for place in places])
        figure.legend(title=label, frameon=False, ncols=1 + len(labels) // 16, loc="outside left upper")
    else:
        shares = held / held.sum(1, keepdims=True)
        image = left.imshow(
            shares.T, aspect="auto", origin="lower", cmap="viridis", interpolation="nearest", vmin=0, vmax=1
        )
        left.set(yticks=range(len(labels)), yticklabels=labels, ylabel=label)
        figure.colorbar(image, ax=left, label="share of the client's rows")
    shown = f"{len(places)} of {len(population)} clients" if len(places) < len(population) else f"{len(places)} clients"
    left.set(xlabel=shown, title="labels by client")
    right.step(np.arange(len(places)), np.sort(population.counts[places])[::-1], where="mid", color="tab:gray")
    right.set(xlabel="clients, the largest first", ylabel="rows", title="sizes", ylim=(0, None))
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def summary(population: Population, *, label: str = "y") -> str:
    """A table for terminals: rows and labels of at most 20 clients, evenly spread, and of all.

    >>> print(summary(Population.from_arrays([[0.0], [1.0], [2.0]], [5, 7, 7], groups=["a", "a", "b"])))
    client  rows  5  7
    a          2  1  1
    b          1  0  1
    all        3  1  2
    """
    labels, total = _held(population.pooled(), label, np.zeros(1, np.int64))
    places = _spread(len(population), LISTED)
    _, held = _held(population, label, places)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, name in enumerate(["client", "rows", *labels]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    names = [population.names[place] for place in places]
    for name, row in zip([*names, "all"], np.concatenate([held, total]), strict=True):
        table.add_row(name, str(row.sum()), *map(str, row))
    out = io.StringIO()
    Console(file=out, width=10_000, no_color=True, markup=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _held(population: Population, label: str, places: Column) -> tuple[list[str], Int[np.ndarray, "clients labels"]]:
    """The labels there are, as texts, and how many rows of each the clients at some places hold."""
    column = population.everything().rows(label)
    kinds = np.unique(column)
    if column.ndim != 1 or len(kinds) > LABELS:
        raise DataError(
            f"column {label!r} is no label that can be counted: it has rows of shape {column.shape[1:]} and "
            f"{len(kinds)} kinds of values, and at most {LABELS} are told apart. Name another column as label"
        )
    held = np.zeros((len(places), len(kinds)), np.int64)
    for row, place in enumerate(places):
        start, end = population.offsets[place : place + 2]
        held[row] = np.bincount(np.searchsorted(kinds, column[start:end]), minlength=len(kinds))
    return _texts(kinds), held


def _texts(kinds: Column) -> list[str]:
    """Labels as texts that differ: short ones where these do."""
    short = [str(int(kind)) if kinds.dtype.kind in "biu" else f"{kind:g}" for kind in kinds]
    return short if len(set(short)) == len(short) else list(map(str, kinds.tolist()))


def _bars(axes: Any, held: Int[np.ndarray, "clients labels"], labels: list[str], names: list[str]) -> None:
    colors = needed("matplotlib", "plot").colormaps["tab20" if len(labels) > 10 else "tab10"]
    bottom = np.zeros(len(held), np.int64)
    for place, name in enumerate(labels):
        axes.bar(range(len(held)), held[:, place], bottom=bottom, label=name, color=colors(place % colors.N))
        bottom += held[:, place]
    axes.set(ylabel="rows", xticks=range(len(names)))
    axes.set_xticklabels(names, rotation=0 if sum(map(len, names)) < 40 else 90)


def _spread(count: int, shown: int) -> Column:
    return np.arange(count) if count <= shown else np.linspace(0, count - 1, shown).round().astype(np.int64)
