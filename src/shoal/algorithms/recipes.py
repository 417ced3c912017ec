"""Named aggregations for most needs, each one line over the parts."""

from __future__ import annotations

from shoal.aggregation import Aggregation, Mean, PlainSum, Total
from shoal.steps import Weigh


def mean() -> Aggregation:
    """The mean of the clients' values, every client alike.

    >>> print(mean())
    PlainSum() >> Mean()
    """
    return PlainSum() >> Mean()


def weighted_mean(cap: float = 2**24) -> Aggregation:
    """The mean of the clients' values, each by its number of examples (at most `cap`).

    The default cap is the largest count that a float32 holds exactly; as a power of two it costs no rounding.

    >>> print(weighted_mean(cap=500))
    Weigh(cap=500.0) >> PlainSum() >> Mean()
    """
    return Weigh(cap) >> PlainSum() >> Mean()


def total() -> Aggregation:
    """The sum of the clients' values: for counts.

    >>> print(total())
    PlainSum() >> Total()
    """
    return PlainSum() >> Total()
