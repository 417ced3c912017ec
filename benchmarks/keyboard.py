"""The keyboard's quality on Shakespeare's roles: rows of `python -m benchmarks engine --only keyboard`."""

from __future__ import annotations

import sys
import time

import shoal
from benchmarks.report import Report
from shoal.demos.keyboard import Data, Study, study
from shoal.demos.keyboard_lstm import FULL, recalls, train_pooled
from shoal.errors import PackageError

FIGURES = (
    ("bigrams, federated", "keyboard bigrams", (0.094, 0.184)),
    ("trigrams, federated", "keyboard trigrams", (0.112, 0.208)),
    ("LSTM, FedAvg", "keyboard LSTM", (0.110, 0.200)),
)
"""The recall of the first suggestion and of three that each is to reach, to three digits."""
HALF = 0.0005
"""What rounding to three digits moves."""


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows; none if `quick`, since the LSTM's training takes minutes."""
    if quick or only not in "keyboard LSTM":
        return
    try:
        data = Data.of(shoal.shakespeare(), words=10_000)
    except PackageError as error:
        print(f"keyboard: skipped, since the plays are not there: {error}", file=sys.stderr)
        return
    begun: list[float] = []
    found = study(data, FULL, tell=lambda step: begun.append(time.perf_counter()) if step != "round" else None)
    _counted(report, found)
    report.add("keyboard LSTM minutes of training", (begun[-1] - begun[-2]) / 60, "min", bound=15)
    _beside_pooled(report, found)


def _counted(report: Report, found: Study) -> None:
    """What was missed, since a bound is the most that a figure may be."""
    report.add("keyboard counts compared with pooled ones", sum(found.equal), "counts")
    lines = {line.way: line for line in found.lines}
    for way, name, (first, three) in FIGURES:
        missed = [1 - recall for recall in lines[way].recall]
        report.add(f"{name}, next word is not the first", missed[0], "", bound=1 - first + HALF)
        report.add(f"{name}, next word is not of the three", missed[1], "", bound=1 - three + HALF)


def _beside_pooled(report: Report, found: Study) -> None:
    """How much better the same network is that had all text in one place, and as many passes over it."""
    assert found.network is not None
    begin = time.perf_counter()
    pooled = recalls(*train_pooled(found.data.train, found.data.vocabulary, FULL, found.counted.counts[0]),
                     found.data.test.rows(found.data.vocabulary, length=FULL.length))  # fmt: skip
    report.add("keyboard LSTM pooled, minutes of training", (time.perf_counter() - begin) / 60, "min")
    for name, better, ours in zip(("first", "three"), pooled, found.lines[-1].recall, strict=True):
        report.add(f"keyboard LSTM below pooled, {name}", better - ours, "", bound=0.005)
