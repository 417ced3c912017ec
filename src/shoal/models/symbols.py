"""Rows of symbols: what a language model takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.errors import DataError


def check_symbols(x: np.ndarray[Any, Any], vocabulary: int, *, most: int | None = None) -> None:
    """DataError if rows are not whole numbers of the vocabulary, or longer than a model reads."""
    if x.ndim != 2 or not x.shape[1] or not np.issubdtype(x.dtype, np.integer):
        raise DataError(
            f"a language model takes rows of symbols, (rows, length) whole numbers, not rows of shape {x.shape[1:]} "
            f"and dtype {x.dtype}"
        )
    if most is not None and x.shape[1] > most:
        raise DataError(
            f"this model reads at most {most} symbols, and rows have {x.shape[1]}: cut the text into pieces"
        )
    wrong = ((x < 0) | (x >= vocabulary)).any(axis=1)
    if wrong.any():
        raise DataError(
            f"symbols are whole numbers from 0 to {vocabulary - 1} for a vocabulary of {vocabulary}; "
            f"{int(wrong.sum())} of {len(x)} rows hold others, the first is row {int(np.flatnonzero(wrong)[0])}"
        )
