"""Columns as torch tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from shoal.extras import needed
from shoal.models.torch_losses import TorchLoss

torch = needed("torch", "torch")

Tensor = Any


def inputs(column: np.ndarray[Any, Any], device: str) -> Tensor:
    """Rows for a module: float32 for numbers, int64 for whole numbers but bytes and truth values, which stay."""
    if column.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float32 has infinities where float64 has numbers
            column = column.astype(np.float32, copy=False)
    elif column.dtype not in (np.uint8, np.bool_):
        column = column.astype(np.int64, copy=False)
    return tensor(column).to(device)


def labels(column: np.ndarray[Any, Any], loss: TorchLoss, device: str) -> Tensor:
    """Labels in the dtype that a loss reads: whole numbers are int64, others float32."""
    return loss.labels(inputs(column if column.dtype.kind == "f" else column.astype(np.int64, copy=False), device))


def tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the memory of an array. Nobody writes to it: columns are read-only, and torch warns of that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
