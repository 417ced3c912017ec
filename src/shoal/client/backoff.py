"""How long to wait before the next attempt: exponential back-off with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits between attempts: each drawn evenly between 0 and a bound that doubles from `first_s` to `most_s`.

    Full jitter (Brooker 2015, "Exponential backoff and jitter"): a server that comes back is not met by all its
    clients at once. What a server asks for (`Retry-After`) is the least that is waited; jitter comes on top.

    >>> backoff = Backoff(draw=lambda: 1.0)
    >>> [backoff.wait_s(attempt) for attempt in (0, 1, 2, 50)], backoff.wait_s(0, asked_s=30)
    ([0.5, 1.0, 2.0, 60.0], 30.5)
    """

    first_s: float = 0.5
    most_s: float = 60.0
    draw: Callable[[], float] = random.random

    def wait_s(self, attempt: int, *, asked_s: float | None = None) -> float:
        """How long to wait after a failed attempt; attempts are counted from 0."""
        bound = min(self.first_s * 2.0 ** min(attempt, 60), self.most_s)
        return (asked_s or 0.0) + bound * self.draw()
