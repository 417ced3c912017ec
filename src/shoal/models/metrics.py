"""Metrics that are not sums over examples."""

from __future__ import annotations

from typing import Any

import numpy as np


def auc(scores: Any, labels: Any) -> float:
    """The area under the ROC curve: how often a random positive scores above a random negative.

    `labels` are 0 or 1; ties count one half (the Mann-Whitney statistic, Hanley and McNeil 1982). NaN if only
    one class is there, where the question makes no sense.

    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    scores, positive = np.asarray(scores, np.float64).ravel(), np.asarray(labels).ravel() > 0
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def recall(suggested: Any, labels: Any) -> float:
    """How often the label is among a row's suggestions: recall at 1 of `suggested[:, :1]`, at 3 of three columns.

    >>> recall([[3, 4, 5], [2, 3, 6]], [4, 9])
    0.5
    """
    found = np.asarray(suggested) == np.asarray(labels)[:, None]
    return float(found.any(axis=1).mean())
