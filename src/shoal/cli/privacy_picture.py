"""The picture of `shoal privacy`: epsilon by rounds, and by noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shoal.extras import needed
from shoal.privacy import Spent


def save(path: Path, by_rounds: Sequence[Spent], by_noise: Sequence[Spent], *, plan: Spent) -> None:
    """Saves two curves, with the plan's own place on each, as an image."""
    figure = needed("matplotlib.figure", "plot").Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([one.rounds for one in by_rounds], [one.epsilon for one in by_rounds], marker="o", ms=3)
    left.plot([plan.rounds], [plan.epsilon], "o", color="tab:red")
    left.set(xlabel="rounds", ylabel=f"epsilon at delta {plan.delta:g}", ylim=(0, None))
    right.loglog([one.noise_multiplier for one in by_noise], [one.epsilon for one in by_noise], marker="o", ms=3)
    right.loglog([plan.noise_multiplier], [plan.epsilon], "o", color="tab:red")
    right.set(xlabel="noise multiplier")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
