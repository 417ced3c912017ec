"""The picture of `shoal privacy`: epsilon by rounds, and by noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shoal.extras import needed
from shoal.privacy import Spent


def save(
    path: Path, by_rounds: Sequence[Spent], by_noise: Mapping[float, Spent], *, plan: tuple[float, Spent], noise: str
) -> None:  # fmt: skip
    """Saves two curves, with the place of the plan, its noise and what it spends, on each, as an image."""
    own, spent = plan
    figure = needed("matplotlib.figure", "plot").Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([one.rounds for one in by_rounds], [one.epsilon for one in by_rounds], marker="o", ms=3)
    left.plot([spent.rounds], [spent.epsilon], "o", color="tab:red")
    left.set(xlabel="rounds", ylabel=f"epsilon at delta {spent.delta:g}", ylim=(0, None))
    right.loglog(list(by_noise), [one.epsilon for one in by_noise.values()], marker="o", ms=3)
    right.loglog([own], [spent.epsilon], "o", color="tab:red")
    right.set(xlabel=noise)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
