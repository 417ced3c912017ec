"""What is known of one client's value at a point of the chain.

Kinds are only names: no value is ever an instance of one. The type checker follows them through `>>`, and
the chain checks the same table when it is built.
"""

from __future__ import annotations


class Free:
    """Floats of any size."""


class Bounded(Free):
    """Floats whose L2 norm is bounded before anyone trains."""


class Grid:
    """Integers whose range for one client is known, so that a sum can be masked."""


class Shares:
    """A grid that carries a part of the noise: safe once enough of them are added, not before."""


class Local:
    """Floats of which each client's are private by themselves: random enough, whoever sees them."""


Kind = type[Free] | type[Grid] | type[Shares] | type[Local]
