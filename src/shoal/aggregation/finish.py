"""What the server may do with a sum, or with payloads side by side.

Nobody types a standard deviation. A finish that adds noise multiplies by the sensitivity that the steps
declare; after noise only a public divisor is allowed, and then no weight and no metric is sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Bool, Num

from shoal.aggregation.kinds import Bounded, Free, Grid, Kind, Local, Shares
from shoal.errors import OrderError
from shoal.key import Key
from shoal.noise.tables import LARGEST, LARGEST_SHARE
from shoal.settings import number, settle, whole
from shoal.vector import Array, Layout, Vector, namespace

Kind_contra = TypeVar("Kind_contra", contravariant=True)


@dataclass(frozen=True)
class Sums:
    """A round's decoded sum, and what a finish may know beside it.

    `weight` is the total weight in units of the chain's cap, `clients` how many contributed, `sensitivity`
    how far one client can move `value` in L2 norm.
    """

    value: Vector
    weight: Num[Array, ""]
    clients: Num[Array, ""]
    sensitivity: float


class Ends(ABC):
    """The end of an aggregation: nothing follows it."""

    takes: ClassVar[tuple[Kind, ...]]
    weighted: ClassVar[bool] = True
    """Whether weights mean something here, so that `Weigh` may stand before it."""

    if not TYPE_CHECKING:

        def __rshift__(self, other):
            raise OrderError(f"nothing follows {type(self).__name__}, which ends an aggregation")


class Finish(Ends, Generic[Kind_contra]):
    """What becomes of a sum."""

    private: ClassVar[bool] = False
    """Whether noise protects the sum, so that no weight and no metric may be sent beside it."""
    needs_clients: ClassVar[bool] = True
    """Whether a round without a single contribution has no result."""

    @abstractmethod
    def finish(self, sums: Sums, key: Key) -> Vector:
        """The result of the round, from its sums."""


class Correlates(Finish[Kind_contra]):
    """A finish whose noise in a round depends on that of the rounds before."""

    private: ClassVar[bool] = True
    needs_clients: ClassVar[bool] = False

    @abstractmethod
    def begin(self, layout: Layout) -> Any:
        """What is remembered before the first round: arrays."""

    @abstractmethod
    def follow(self, sums: Sums, key: Key, memory: Any) -> tuple[Vector, Any]:
        """The result of the round, and what is remembered for the next."""

    @abstractmethod
    def check_schedule(self, *, rounds: int, separation: int) -> None:
        """SettingError if the noise is not enough for so many rounds, a client coming again after `separation`."""

    def finish(self, sums: Sums, key: Key) -> Vector:
        """Not by itself: the rounds before it matter."""
        raise OrderError(f"the noise of {type(self).__name__} depends on the rounds before: use follow")


class Robust(Ends):
    """What becomes of payloads side by side."""

    weighted: ClassVar[bool] = False

    @abstractmethod
    def combine(self, values: Num[Array, "payloads size"], present: Bool[Array, " payloads"]) -> Vector:
        """The result of the round, from the rows that are present; at least one is."""


@dataclass(frozen=True)
class Mean(Finish[Free | Grid]):
    """The sum divided by the total weight that came in: by clients, or after `Weigh` by examples."""

    takes: ClassVar[tuple[Kind, ...]] = (Free, Grid)

    def finish(self, sums: Sums, key: Key) -> Vector:
        """value / weight; zero where the weight is zero."""
        xp = namespace(sums.value)
        return sums.value * (xp.float32(1) / xp.where(sums.weight > 0, sums.weight, xp.float32(1)))


@dataclass(frozen=True)
class Total(Finish[Free | Grid]):
    """The sum itself: for counts, and for models that are made of counts."""

    takes: ClassVar[tuple[Kind, ...]] = (Free, Grid)
    weighted: ClassVar[bool] = False

    def finish(self, sums: Sums, key: Key) -> Vector:
        """The sum, as it came in."""
        return sums.value


@dataclass(frozen=True)
class Gaussian(Finish[Bounded | Grid]):
    """Normal noise of `multiplier` times the sensitivity, then divided by a public number of `clients`.

    A server draws it from the operating system; a simulation from the run's key, which is good for measuring utility
    and protects nobody. The mechanism is that of McMahan et al. 2018 ("Learning differentially private recurrent
    language models", section 3).
    """

    multiplier: float
    clients: int
    takes: ClassVar[tuple[Kind, ...]] = (Bounded, Grid)
    private: ClassVar[bool] = True
    needs_clients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _settle_noise(self)

    def finish(self, sums: Sums, key: Key) -> Vector:
        """(value + N(0, (multiplier * sensitivity)^2)) / clients."""
        noise = np.float32(self.multiplier * sums.sensitivity) * key.normal(sums.value)
        return (sums.value + noise) * np.float32(1 / self.clients)


@dataclass(frozen=True)
class NoisesGrid(Finish[Grid]):
    """A finish with integer noise of `multiplier` times the sensitivity, then divided by a public number of `clients`.

    The noise is added to the integers before they are numbers of training again: sum and noise are exact, so no
    rounding of floats tells one sum from another (Mironov 2012). Drawn as that of `Gaussian` is.
    """

    multiplier: float
    clients: int
    takes: ClassVar[tuple[Kind, ...]] = (Grid,)
    private: ClassVar[bool] = True
    needs_clients: ClassVar[bool] = False
    widest: ClassVar[float]
    """The largest standard deviation, in steps of the grid, that a server can draw."""

    def __post_init__(self) -> None:
        _settle_noise(self)

    def finish(self, sums: Sums, key: Key) -> Vector:
        """value / clients; the noise is in the value."""
        return sums.value * np.float32(1 / self.clients)

    def deviation(self, sensitivity: float) -> float:
        """The standard deviation of the noise: multiplier * sensitivity."""
        return self.multiplier * sensitivity

    @abstractmethod
    def draw(self, key: Key, deviation: float, like: Vector) -> Vector:
        """Integers of a standard deviation, in steps of the grid, in the shape of `like`."""


@dataclass(frozen=True)
class DiscreteGaussian(NoisesGrid):
    """Integer noise of `multiplier` times the sensitivity on the grid, then divided by a public number of `clients`.

    Discrete Gaussian noise (Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy").

    >>> from shoal.aggregation import SecureSum
    >>> from shoal.steps import Clip, Quantize
    >>> chain = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> DiscreteGaussian(1.0, clients=100)
    >>> chain.finish.deviation(sensitivity=2.0)
    2.0
    """

    widest: ClassVar[float] = LARGEST

    def draw(self, key: Key, deviation: float, like: Vector) -> Vector:
        """Discrete Gaussian integers."""
        return key.discrete_gaussian(deviation, like)


@dataclass(frozen=True)
class Skellam(NoisesGrid):
    """As `DiscreteGaussian`, with Skellam noise: what `NoiseShare` adds up to, drawn whole by the server.

    The difference of two Poisson draws (Agarwal, Kairouz and Liu 2021, "The Skellam mechanism for differentially
    private federated learning", section 2). On a fine grid it costs what normal noise costs.

    >>> from shoal.aggregation import SecureSum
    >>> from shoal.steps import Clip, Quantize
    >>> chain = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=50) >> Skellam(1.0, clients=100)
    >>> chain.finish.deviation(sensitivity=2.0)
    2.0
    """

    widest: ClassVar[float] = LARGEST_SHARE

    def draw(self, key: Key, deviation: float, like: Vector) -> Vector:
        """Skellam integers."""
        return key.skellam(deviation**2, like)


@dataclass(frozen=True)
class Over(Finish[Shares | Local]):
    """The sum divided by a public number of `clients`; its noise came with their contributions."""

    clients: int
    takes: ClassVar[tuple[Kind, ...]] = (Shares, Local)
    private: ClassVar[bool] = True
    needs_clients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self, clients=whole(self.clients, "a sum is divided by at least one client", least=1))

    def finish(self, sums: Sums, key: Key) -> Vector:
        """value / clients."""
        return sums.value * np.float32(1 / self.clients)


def _settle_noise(finish: Gaussian | NoisesGrid) -> None:
    settle(
        finish,
        multiplier=number(finish.multiplier, "a noise multiplier is over 0", lambda v: v > 0),
        clients=whole(finish.clients, "a sum is divided by at least one client", least=1),
    )
