"""What a run makes public, as far as privacy goes: how often a noised sum, with which noise, of whom."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from shoal.aggregation import DiscreteGaussian, Gaussian, MatrixGaussian, Over, Skellam
from shoal.aggregation.step import Adapts
from shoal.cohort import Everyone, sampler, separation
from shoal.errors import SettingError
from shoal.key import Key
from shoal.matrices import Banded, Blt, Matrix, Tree
from shoal.plan import Plan
from shoal.settings import number, settle, whole
from shoal.steps import AdaptiveClip, LocalGaussian, LocalLaplace, NoiseShare, RandomizedResponse
from shoal.turns import DRAWN

LOCAL = (LocalGaussian, LocalLaplace, RandomizedResponse)
"""The steps that make one contribution private by itself, and whose epsilon is known."""


@dataclass(frozen=True)
class Shared:
    """Skellam noise that clients add in shares: whole once `at_least` shares are in the sum.

    With an `at_least` of 0 the server adds it, whole, as `Skellam` does. `norm` is the L2 norm that one client's
    integers can have, `size` how many they are.
    """

    at_least: int
    norm: float
    size: int


@dataclass(frozen=True)
class Whoever:
    """The cohorts of a server: whoever is there. It knows who, so a client counts as being in each of them."""

    def draw(self, key: Key, population: int) -> Any:
        """All positions."""
        return Everyone().draw(key, population)

    def most(self, population: int) -> int:
        """The population."""
        return population

    def __str__(self) -> str:
        return "whoever is there"


@dataclass(frozen=True)
class Releases:
    """`rounds` noised sums, each over a cohort: all that an accountant needs to know of a plan.

    `multiplier` is the standard deviation of the noise over the sensitivity, which is how far one client, added or
    removed, moves the sum. `threshold` is a secure sum's: a round with fewer clients releases nothing. The noise is
    normal, or `discrete` on a grid, or Skellam noise as `shared` says. With a `matrix` it is correlated between
    rounds, and the multiplier is that of `MatrixGaussian`, for all rounds together.

    >>> Releases(1.0, rounds=100, cohort=0.1).cohort
    Fraction(fraction=0.1)
    """

    multiplier: float
    rounds: int
    cohort: Any = None
    threshold: int = 0
    discrete: bool = False
    shared: Shared | None = None
    matrix: Matrix | None = None

    def __post_init__(self) -> None:
        settle(
            self,
            multiplier=number(self.multiplier, "a noise multiplier is over 0", lambda v: v > 0),
            rounds=whole(self.rounds, "a run has at least one round", least=1),
            cohort=sampler(self.cohort),
            threshold=whole(self.threshold, "a threshold is a number of clients, 0 for none", least=0),
        )
        if self.matrix is not None:
            finish = MatrixGaussian(self.multiplier, clients=1, matrix=self.matrix)
            finish.check_schedule(rounds=self.rounds, separation=separation(self.cohort))

    @property
    def events(self) -> int:
        """How many events of one client there are to add up: its rounds, or one where their noise is correlated."""
        return 1 if self.matrix is not None else -(-self.rounds // separation(self.cohort))

    @staticmethod
    def of(plan: Plan) -> Releases:
        """What a plan releases; SettingError, with the reason, if no epsilon can be given for it."""
        why = why_none(plan)
        if why is not None:
            raise SettingError(why)
        chain, layout = plan.algorithm.aggregation, plan.algorithm.layout
        if chain.local:
            raise SettingError(f"{chain}: each contribution is private by itself, which is what LocalReleases says")
        if isinstance(chain.finish, Gaussian | DiscreteGaussian):
            discrete = isinstance(chain.finish, DiscreteGaussian)
            return Releases(chain.finish.multiplier, plan.rounds, plan.cohort, chain.threshold, discrete)
        if isinstance(chain.finish, MatrixGaussian):
            matrix = chain.finish.matrix
            return Releases(chain.finish.multiplier, plan.rounds, plan.cohort, chain.threshold, matrix=matrix)
        norm, size = chain.sensitivity(layout) / chain.unit, chain.sent(layout).size
        if isinstance(chain.finish, Skellam):
            source, at_least = chain.finish, 0
        else:
            source = next(step for step in chain.steps if isinstance(step, NoiseShare))
            at_least = source.at_least
        shared = Shared(at_least, norm, size)
        return Releases(source.multiplier, plan.rounds, plan.cohort, chain.threshold, shared=shared)


def why_none(plan: Plan) -> str | None:
    """Why no epsilon can be given for a plan, as a sentence; None if one can."""
    chain = plan.algorithm.aggregation
    finish = type(chain.finish).__name__
    if not chain.private:
        return (
            f"no noise is added before {finish}, so nothing bounds what one client gives away: finish with "
            "Clip(norm) >> PlainSum() >> Gaussian(multiplier, clients=...), for example"
        )
    if type(chain.finish) not in (*DRAWN, MatrixGaussian):
        return (
            f"the accountant does not know the noise of {finish}: it knows Gaussian, DiscreteGaussian, Skellam, "
            "MatrixGaussian, and NoiseShare or a local step before Over"
        )
    if isinstance(chain.finish, MatrixGaussian) and type(chain.finish.matrix) not in (Banded, Blt, Tree):
        return f"the accountant does not know {chain.finish.matrix}: it knows Banded, Blt and Tree"
    if type(chain.finish) is Over and not any(type(step) in (NoiseShare, *LOCAL) for step in chain.steps):
        return (
            "the accountant does not know the noise in these contributions: it knows that of NoiseShare, "
            "LocalGaussian, LocalLaplace and RandomizedResponse"
        )
    foreign = (step for step in chain.steps if isinstance(step, Adapts) and type(step) is not AdaptiveClip)
    adapts = next((type(step).__name__ for step in foreign), None)
    if adapts is not None:
        return f"the accountant does not know what {adapts} gives away beside the sum: use AdaptiveClip or Clip"
    if not math.isfinite(chain.sensitivity(plan.algorithm.layout)):
        return "one client moves the sum without limit, and no noise hides that: put Clip(norm) before the sum"
    return None
