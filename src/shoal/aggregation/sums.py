"""Where clients meet: the ways to add payloads up, or to keep them side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from shoal.aggregation import order
from shoal.aggregation.chain import Aggregation
from shoal.aggregation.finish import Ends, Finish, Robust
from shoal.aggregation.kinds import Free, Grid, Kind, Local, Shares
from shoal.aggregation.payload import Bag, Payload
from shoal.aggregation.step import Step
from shoal.settings import settle, whole

Kind_contra = TypeVar("Kind_contra", contravariant=True)
Kind_co = TypeVar("Kind_co", covariant=True)
K = TypeVar("K")


class Meeting(ABC):
    """A way for payloads to come together."""

    takes: ClassVar[tuple[Kind, ...]]
    adds: ClassVar[bool] = True
    """Whether payloads are added up."""

    @property
    def hides(self) -> int:
        """The least number of payloads of whose sum alone the server learns; 0 if it sees each one by itself."""
        return 0

    @abstractmethod
    def lift(self, payload: Payload) -> Any:
        """One payload as something that can be added to others."""

    @abstractmethod
    def releases(self, clients: Any) -> Any:
        """Whether the server may see the sum of so many clients."""


class Sum(Meeting, Generic[Kind_contra]):
    """A way to add payloads up."""

    def after(self, steps: tuple[Step[Any, Any], ...]) -> Summed[Any]:
        """This sum behind a chain of steps."""
        return Summed(steps, self)

    def __rshift__(self: Sum[Free], other: Finish[Free]) -> Aggregation:
        return self.after(()) >> other


@dataclass(frozen=True)
class PlainSum(Sum[Free | Grid | Local]):
    """The server adds up payloads that it sees one by one.

    >>> from shoal.aggregation.finish import Mean
    >>> print(PlainSum() >> Mean())
    PlainSum() >> Mean()
    """

    takes: ClassVar[tuple[Kind, ...]] = (Free, Grid, Local)

    def lift(self, payload: Payload) -> Payload:
        """The payload itself."""
        return payload

    def releases(self, clients: Any) -> Any:
        """Always: there is nothing to protect."""
        return True


@dataclass(frozen=True)
class SecureSum(Sum[Grid | Shares]):
    """The server sees the sum of at least `threshold` payloads, or nothing.

    Here, in simulation, the same integers are added without masks, which cancel in the sum; a round with
    fewer clients than the threshold releases nothing and changes nothing.
    """

    threshold: int
    takes: ClassVar[tuple[Kind, ...]] = (Grid, Shares)

    def __post_init__(self) -> None:
        rule = "a secure sum of fewer than 2 clients hides nobody; the threshold is at least 2"
        settle(self, threshold=whole(self.threshold, rule, least=2))

    @property
    def hides(self) -> int:
        """The threshold."""
        return self.threshold

    def lift(self, payload: Payload) -> Payload:
        """The payload itself."""
        return payload

    def releases(self, clients: Any) -> Any:
        """Whether there are as many clients as the threshold."""
        return clients >= self.threshold


@dataclass(frozen=True)
class Collect(Meeting):
    """The server keeps every payload until the end of the round, for a robust rule to look at each."""

    takes: ClassVar[tuple[Kind, ...]] = (Free,)
    adds: ClassVar[bool] = False

    def lift(self, payload: Payload) -> Bag:
        """A bag with the payload in it."""
        return Bag.of(payload)

    def releases(self, clients: Any) -> Any:
        """Always: there is nothing to protect."""
        return True

    def after(self, steps: tuple[Step[Any, Any], ...]) -> Collected:
        """This meeting behind a chain of steps."""
        return Collected(steps, self)

    def __rshift__(self, other: Robust) -> Aggregation:
        return self.after(()) >> other


@dataclass(frozen=True)
class Summed(Generic[Kind_co]):
    """A chain with its sum, not finished yet."""

    steps: tuple[Step[Any, Any], ...]
    meeting: Sum[Any]

    def __post_init__(self) -> None:
        kind = order.kind_after(self.steps)
        if not issubclass(kind, self.meeting.takes):
            order.refuse(self.meeting, kind, self.steps)

    def __rshift__(self: Summed[K], other: Finish[K]) -> Aggregation:
        if isinstance(other, Ends):
            return Aggregation(self.steps, self.meeting, other)
        return order.refuse_after_sum(other)


@dataclass(frozen=True)
class Collected:
    """A chain whose payloads are kept, not finished yet."""

    steps: tuple[Step[Any, Any], ...]
    meeting: Collect

    def __post_init__(self) -> None:
        kind = order.kind_after(self.steps)
        if not issubclass(kind, self.meeting.takes):
            order.refuse(self.meeting, kind, self.steps)

    def __rshift__(self, other: Robust) -> Aggregation:
        if isinstance(other, Ends):
            return Aggregation(self.steps, self.meeting, other)
        return order.refuse_after_sum(other)
