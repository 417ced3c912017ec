"""What epsilon costs: rows of `python -m benchmarks privacy`, accuracies of the images demo with and without noise."""

from __future__ import annotations

import shoal
from benchmarks.report import Report
from shoal.data.images import MNIST as PACKAGE
from shoal.demos import images_private
from shoal.demos.images_private import Private, study

MOST_LOST = {1.0: 0.08, 2.0: 0.05, 8.0: 0.02}
"""How far the accuracy may be below that without noise."""


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds a row for each epsilon, on digits and, where it was fetched, on MNIST; `quick` leaves MNIST out."""
    if only in "utility, digits":
        _rows(report, "digits", shoal.digits(), images_private.DIGITS)
    if only in "utility, mnist" and not quick and PACKAGE.cached is not None:
        _rows(report, "mnist", shoal.mnist(), images_private.MNIST)


def _rows(report: Report, data: str, images: tuple[shoal.Population, shoal.Population], setting: Private) -> None:
    found = study(*images, data=data, setting=setting)
    plain = found.lines[-1].accuracy
    report.add(f"utility, {data}, no noise: accuracy", plain, "")
    for line in found.lines[:-1]:
        assert line.epsilon is not None
        name = f"utility, {data}, epsilon {line.epsilon:g}, noise {line.multiplier:.3g}"
        report.add(f"{name}: accuracy", line.accuracy, "", reference=plain)
        report.add(f"{name}: lost", plain - line.accuracy, "", bound=MOST_LOST[line.epsilon])
