"""The steps a client takes before the sum, and `>>`, which joins them in an order that makes sense.

A step is a final frozen dataclass that extends one of the abstract classes here and says three things: what
it does to one client's contribution, how the sum is turned back, and what it makes of the bound on one
client's norm. Everything else about a step is a kind or a capability: it keeps the kind it is given, it
compresses, it weighs, it remembers, it adapts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from shoal.aggregation import order
from shoal.aggregation.kinds import Bounded, Free, Grid, Kind, Local, Shares
from shoal.aggregation.payload import Update
from shoal.key import Key
from shoal.vector import Layout, Vector

if TYPE_CHECKING:
    from shoal.aggregation.sums import Collect, Collected, Sum, Summed

In_contra = TypeVar("In_contra", contravariant=True)
Out_co = TypeVar("Out_co", covariant=True)
In = TypeVar("In")
Mid = TypeVar("Mid")
Out = TypeVar("Out")
Float = TypeVar("Float", Free, Bounded)


class Link(ABC, Generic[In_contra, Out_co]):
    """A step or a chain of steps: what `>>` joins."""

    @property
    @abstractmethod
    def steps(self) -> tuple[Step[Any, Any], ...]:
        """The steps, first to last."""

    @overload
    def __rshift__(self: Link[In, Float], other: KeepsKind) -> Chain[In, Float]: ...
    @overload
    def __rshift__(self: Link[In, Mid], other: Link[Mid, Out]) -> Chain[In, Out]: ...
    @overload
    def __rshift__(self: Link[Free, Mid], other: Sum[Mid]) -> Summed[Mid]: ...
    @overload
    def __rshift__(self: Link[Free, Float], other: Collect) -> Collected: ...
    def __rshift__(self, other: Any) -> Any:
        return Chain(self.steps + other.steps) if isinstance(other, Link) else order.joined(self.steps, other)


class Step(Link[In_contra, Out_co]):
    """One client-side transform, with its linear inverse on the sum."""

    takes: ClassVar[tuple[Kind, ...]] = (Free,)
    gives: ClassVar[Kind | None] = Free
    """The kind after this step; None if it is the kind before it."""

    @property
    def steps(self) -> tuple[Step[Any, Any], ...]:
        """This step alone."""
        return (self,)

    @abstractmethod
    def encode(self, update: Update, state: Any, key: Key) -> tuple[Update, Any]:
        """On the client: the contribution after this step, and what the step remembers there."""

    @abstractmethod
    def decode(self, total: Vector) -> Vector:
        """On the server: undoes the step on a sum, along the last axis; linear."""

    @abstractmethod
    def bound(self, before: float, layout: Layout) -> float:
        """The L2 norm that one client can have after this step, from what it could have before."""

    def after(self, layout: Layout) -> Layout:
        """What a value is made of after this step."""
        return layout

    def entry(self, bound: float, layout: Layout) -> float:
        """The most, in size, that one number of a value of an L2 norm of at most `bound` is after this step."""
        return bound


class KeepsKind(Step[Free, Free]):
    """A step on floats after which as much is known as before: a bound still holds, perhaps a wider one."""

    gives: ClassVar[Kind | None] = None


class Shortens(ABC):
    """What a step is after which a value takes fewer bytes."""

    @abstractmethod
    def upload_bytes(self, layout: Layout) -> int:
        """The most bytes that one client's value takes after this step."""


class Compresses(KeepsKind, Shortens):
    """A step that sends less. What it leaves out can be remembered for the next round."""


class Weighs(KeepsKind):
    """A step that scales a contribution by its weight over `cap`, and sends the weight."""

    cap: float


class Discretizes(Step[Bounded, Grid]):
    """A step from floats to integers: `unit` is what one of them is worth."""

    takes: ClassVar[tuple[Kind, ...]] = (Bounded,)
    gives: ClassVar[Kind | None] = Grid

    @property
    @abstractmethod
    def unit(self) -> float:
        """The distance between two neighbours on the grid."""

    @abstractmethod
    def reach(self, entry: float) -> int:
        """The largest integer, in size, that comes of a number of at most `entry`."""


class Noises(Step[Grid, Shares]):
    """A step that adds a share of the noise, which is whole once `at_least` clients' shares are in the sum."""

    takes: ClassVar[tuple[Kind, ...]] = (Grid,)
    gives: ClassVar[Kind | None] = Shares
    at_least: int

    @abstractmethod
    def deviation(self, bound: float) -> float:
        """The standard deviation of one share, in the units that the bound on a client's norm is given in."""


class Randomizes(Step[In_contra, Local]):
    """A step after which a client's contribution is private by itself, so that nobody has to be trusted.

    Every client sends one that takes part, whatever its data is: one without usable data randomizes zeros.
    """

    gives: ClassVar[Kind | None] = Local

    @abstractmethod
    def deviation(self, bound: float, layout: Layout) -> float:
        """The standard deviation of one number of it, from the L2 norm that a value can have before this step."""

    def longest(self, bound: float, layout: Layout) -> float:
        """The L2 norm that a contribution of a client that keeps to the step has, but for one in 10**20.

        Of independent numbers with tails of normal or Laplace noise.
        """
        return self.bound(bound, layout) + self.deviation(bound, layout) * (4 * math.sqrt(layout.size) + 40)


class Remembers(Step[In_contra, Out_co]):
    """A step with a memory on the client. It never leaves."""

    @abstractmethod
    def start(self, layout: Layout) -> Any:
        """The memory of a client that has not taken part yet: arrays, so that it can live in a compiled call."""


class Adapts(Step[In_contra, Out_co]):
    """A step with a setting that is another one each round, by what the rounds before it released.

    The setting lies with the server, and clients find it in `Update.setting`. What a mean of contributions is, and the
    bound on one client, are in units of the setting: noise is as exact as with a fixed one.
    """

    setting_name: ClassVar[str]
    """What the setting is called in a history."""

    @property
    @abstractmethod
    def coarsest(self) -> float:
        """The largest step of a grid on which what the setting is learned from is not lost."""

    @abstractmethod
    def begin(self) -> Any:
        """The setting of the first round: a number, as an array."""

    @abstractmethod
    def settle(self, result: Vector, setting: Any) -> tuple[Vector, Any]:
        """On the server: a round's result in units of training, and the setting of the next round."""


@dataclass(frozen=True)
class Chain(Link[In_contra, Out_co]):
    """Steps that fit, in order. OrderError if they do not."""

    links: tuple[Step[Any, Any], ...]

    def __post_init__(self) -> None:
        order.kind_after(self.links)

    @property
    def steps(self) -> tuple[Step[Any, Any], ...]:
        """The steps, first to last."""
        return self.links
