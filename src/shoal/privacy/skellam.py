"""The Renyi differential privacy of Skellam noise."""

from __future__ import annotations

import math

ORDERS = (*range(2, 64), 80, 96, 128, 192, 256, 512, 1024)
"""Orders for which the bound is proved: whole numbers over 1."""


def renyi(order: int, *, norm: float, variance: float, size: int) -> float:
    """The Renyi divergence of an order, at most, when integers of an L2 norm move under Skellam noise.

    Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for differentially private federated learning",
    theorem 3.5, with the L1 norm that `size` integers of that L2 norm can have. `variance` is that of each number.

    >>> round(renyi(2, norm=10.0, variance=1e6, size=100), 9)
    0.0001
    """
    longest = norm * min(math.sqrt(size), norm)
    near = ((2 * order - 1) * norm**2 + 6 * longest) / (4 * variance**2)
    far = 3 * longest / (2 * variance)
    return order * norm**2 / (2 * variance) + min(near, far)
