"""Epsilon of contributions that are private by themselves, added up over the rounds of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from shoal.cohort import sampler
from shoal.errors import SettingError
from shoal.extras import needed
from shoal.plan import Plan
from shoal.privacy.accounting import FINE, HOPELESS, Accountant, Spent, normal
from shoal.privacy.releases import LOCAL, why_none
from shoal.settings import settle, whole
from shoal.steps import LocalGaussian, LocalLaplace, RandomizedResponse

REPLACED_ALONE = "all data of one client replaced by any other, for whoever sees its contributions"

_SUM = "adding their epsilons"


@dataclass(frozen=True)
class LocalReleases:
    """A contribution in each of `rounds` rounds from one client, each private by itself.

    `step` is what makes them so: `LocalGaussian`, `LocalLaplace` or `RandomizedResponse`; `size` is how many numbers a
    contribution has. Whoever sees contributions knows who was asked, so no cohort makes a client less visible.

    >>> from shoal.privacy import spent
    >>> print(f"{spent(LocalReleases(LocalLaplace(0.1, 1.0), rounds=100), delta=1e-6).epsilon:.2f}")
    4.69
    """

    step: LocalGaussian | LocalLaplace | RandomizedResponse
    rounds: int
    size: int = 1
    cohort: Any = None

    def __post_init__(self) -> None:
        if type(self.step) not in LOCAL:
            names = ", ".join(step.__name__ for step in LOCAL)
            raise SettingError(f"the step is one of {names}, not {self.step!r}")
        settle(
            self,
            rounds=whole(self.rounds, "a run has at least one round", least=1),
            size=whole(self.size, "a contribution has at least one number", least=1),
            cohort=sampler(self.cohort),
        )

    @staticmethod
    def of(plan: Plan) -> LocalReleases:
        """What each client of a plan releases; SettingError, with the reason, if nothing makes it private by itself."""
        chain = plan.algorithm.aggregation
        why = why_none(plan)
        if why is not None or not chain.local:
            raise SettingError(
                why or f"{chain}: no step makes one contribution private by itself, as LocalGaussian does"
            )
        step: Any = next(step for step in chain.steps if type(step) in LOCAL)
        return LocalReleases(step, plan.rounds, max(chain.sent(plan.algorithm.layout).size, 1), plan.cohort)


def price_local(
    releases: LocalReleases, *, delta: float, accountant: Accountant = "PLD", grain: float = FINE
) -> Spent:  # fmt: skip
    """What releases give away of one client."""
    step, rounds = releases.step, releases.rounds
    added = rounds * step.epsilon
    match step:
        case LocalGaussian():
            found = normal(step.multiplier, 1.0, rounds=rounds, delta=delta, accountant=accountant, grain=grain)
            added = added if rounds * step.delta <= delta else math.inf
        case LocalLaplace():
            found = _laplace(step.epsilon, rounds=rounds, delta=delta, accountant=accountant, grain=grain)
        case RandomizedResponse():
            answers = rounds * step.differing(releases.size)
            found = _answers(step.lie(releases.size), answers, delta=delta, accountant=accountant)
    epsilon, how = min(found, (added, _SUM))
    sampling = f"{releases.cohort}: no amplification, since each contribution is seen with its client"
    return Spent(
        epsilon, delta, REPLACED_ALONE, how, rounds, None, sampling, f"{rounds:,} times {step} by each client itself"
    )


@lru_cache(maxsize=256)
def _laplace(
    epsilon: float, *, rounds: int, delta: float, accountant: Accountant, grain: float
) -> tuple[float, str]:  # fmt: skip
    """Epsilon of Laplace noise of 1 / epsilon times the L1 sensitivity, so many times; and how it was found."""
    dp, rdp = needed("dp_accounting", "dp"), needed("dp_accounting.rdp", "dp")
    bound = float(rdp.RdpAccountant().compose(dp.LaplaceDpEvent(1 / epsilon), rounds).get_epsilon(delta))
    if accountant == "RDP" or bound > HOPELESS:
        return bound, "RDP"
    losses = _distributions().from_laplace_mechanism(1 / epsilon, value_discretization_interval=grain)
    return float(losses.self_compose(rounds).get_epsilon_for_delta(delta)), "PLD"


@lru_cache(maxsize=256)
def _answers(lie: float, answers: int, *, delta: float, accountant: Accountant) -> tuple[float, str]:
    """Epsilon of so many answers, each the wrong one with probability `lie`; and how it was found."""
    dp, rdp = needed("dp_accounting", "dp"), needed("dp_accounting.rdp", "dp")
    relation = dp.NeighboringRelation.REPLACE_ONE
    event = dp.RandomizedResponseDpEvent(2 * lie, 2)  # where it answers at random, half of the answers are right
    bound = float(rdp.RdpAccountant(neighboring_relation=relation).compose(event, answers).get_epsilon(delta))
    if accountant == "RDP" or bound > HOPELESS:
        return bound, "RDP"
    # Each loss is this one or its negative, so on a grain of it nothing is rounded. (The PLDAccountant of dp-accounting
    # 0.6.0 counts such an event once, however often it is composed.)
    losses = needed("dp_accounting.pld.pld_pmf", "dp").create_pmf(
        {1: 1 - lie, -1: lie}, math.log((1 - lie) / lie), infinity_mass=0.0, pessimistic_estimate=True
    )
    together = _distributions().PrivacyLossDistribution(losses).self_compose(answers)
    return float(together.get_epsilon_for_delta(delta)), "PLD"


def _distributions() -> Any:
    return needed("dp_accounting.pld.privacy_loss_distribution", "dp")
