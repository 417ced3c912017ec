"""Error feedback: what a compressor leaves out is sent later."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shoal.aggregation.kinds import Free
from shoal.aggregation.payload import Update
from shoal.aggregation.step import Compresses, Remembers, Shortens
from shoal.errors import OrderError
from shoal.key import Key
from shoal.vector import Layout, Vector


@dataclass(frozen=True)
class Remember(Remembers[Free, Free], Shortens):
    """Adds what `step` left out of this client's earlier contributions, and remembers what it leaves out now.

    Error feedback, Seide et al. 2014; Karimireddy et al. 2019, algorithm 2. The memory stays on the client.
    Because it is added to the value no bound holds after it: clip behind it.

    >>> from shoal.steps import TopK
    >>> Remember(TopK(0.1)).step
    TopK(fraction=0.1)
    """

    step: Compresses

    def __post_init__(self) -> None:
        if not isinstance(self.step, Compresses):
            raise OrderError(
                f"Remember holds a step that leaves out, such as TopK or Round, not {type(self.step).__name__}"
            )

    def start(self, layout: Layout) -> Vector:
        """Zeros."""
        return np.zeros(layout.size, np.float32)

    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """The compressed value; and the rest."""
        whole = update.value + state
        sent, _ = self.step.encode(replace(update, value=whole), None, key)
        return sent, whole - sent.value

    def decode(self, total: Vector) -> Vector:
        """As the step does."""
        return self.step.decode(total)

    def upload_bytes(self, layout: Layout) -> int:
        """As the step does."""
        return self.step.upload_bytes(layout)

    def bound(self, before: float, layout: Layout) -> float:
        """None."""
        return math.inf
