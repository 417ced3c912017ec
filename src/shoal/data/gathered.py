"""The examples of some clients, brought together from wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Gathered:
    """Columns that hold the rows of a few clients one after the other.

    `places` are the clients' places in the population; `counts` and `usable` belong to them. `failed` says of
    clients that could not be loaded, by place, what went wrong: they are not among the others.
    """

    places: Int[np.ndarray, " clients"]
    columns: Mapping[str, np.ndarray[Any, Any]]
    counts: Int[np.ndarray, " clients"]
    usable: Bool[np.ndarray, " clients"]
    failed: Mapping[int, str] = field(default_factory=dict)
