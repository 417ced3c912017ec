"""What a runtime tells of rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from shoal.algorithms import Run


@dataclass(frozen=True)
class RoundRecord:
    """One round: how many contributed, whose contribution was rejected, and the metrics' means.

    `released` is False for a round that changed nothing because too few took part. `lost` is how many were chosen and
    left before their contribution arrived, `waited` how often the round found too few and looked again. `failures`
    says what went wrong with clients that could not be loaded or sent what the plan does not declare, and with a secure
    sum that was stopped.
    """

    round: int
    clients: int
    rejected: tuple[str, ...]
    released: bool
    metrics: Mapping[str, float] = field(default_factory=dict)
    lost: int = 0
    waited: int = 0
    failures: tuple[str, ...] = ()


class Runtime(Protocol):
    """Where rounds run."""

    @property
    def states(self) -> Any:
        """What clients remember: a tree of arrays."""
        ...

    def restore(self, states: Any) -> None:
        """Puts back what clients remembered."""
        ...

    def advance(self, run: Run[Any], rounds: int) -> tuple[Run[Any], list[RoundRecord]]:
        """Runs up to that many rounds, at least one."""
        ...


def means(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Sums and counts as means; a metric that was measured on nothing is left out."""
    return {name: float(pair[0] / pair[1]) for name, pair in metrics.items() if pair[1] > 0}
