"""A budget of privacy, and what a server writes down of each release that is counted against it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from shoal.errors import SettingError
from shoal.plan import Plan
from shoal.privacy.releases import Releases, Shared, Whoever
from shoal.settings import number, settle
from shoal.turns import DRAWN


@dataclass(frozen=True)
class Budget:
    """The most that all runs of a federation together may give away of one client: epsilon at delta.

    A delta of one over the number of clients, or more, would let a mechanism publish one of them.

    >>> print(Budget(epsilon=8, delta=1e-6))
    epsilon 8 at delta 1e-06
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        settle(
            self,
            epsilon=number(self.epsilon, "the epsilon of a budget is over 0", lambda v: v > 0),
            delta=number(self.delta, "the delta of a budget is over 0 and under 1", lambda v: 0 < v < 1),
        )

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:g} at delta {self.delta:g}"


def served(plan: Plan) -> Releases:
    """What a plan releases on a server; SettingError, with the reason, if no epsilon can be given for it.

    Clients come by themselves, and the server knows who: each client counts as being in each round.
    """
    releases, finish = Releases.of(plan), plan.algorithm.aggregation.finish
    if type(finish) not in DRAWN:
        raise SettingError(
            f"the noise of {type(finish).__name__} is simulated so far, and no server draws it: finish with "
            "Gaussian, DiscreteGaussian or Skellam"
        )
    return replace(releases, cohort=Whoever())


def event_of(plan: Plan) -> str:
    """One round of a plan on a server, as text that is kept; `releases_of` reads it.

    >>> from shoal import Clip, FedAvg, Gaussian, PlainSum, models
    >>> chain = Clip(1.0) >> PlainSum() >> Gaussian(2.0, clients=9)
    >>> event_of(Plan(FedAvg(models.logistic(3), aggregation=chain), rounds=1))
    '{"noise": "normal", "multiplier": 2.0, "threshold": 0}'
    """
    found = served(plan)
    noise = "shared" if found.shared else "discrete" if found.discrete else "normal"
    kept = {"noise": noise, "multiplier": found.multiplier, "threshold": found.threshold}
    return json.dumps(kept | (asdict(found.shared) if found.shared else {}))


def releases_of(event: str, rounds: int) -> Releases:
    """So many of a round that was kept as text."""
    kept = json.loads(event)
    noise, shared = kept["noise"], None
    if noise == "shared":
        shared = Shared(kept["at_least"], kept["norm"], kept["size"])
    discrete = noise == "discrete"
    return Releases(kept["multiplier"], rounds, Whoever(), kept["threshold"], discrete=discrete, shared=shared)


def why_not_served(plan: Plan) -> str:
    """Why a server with a budget does not run a plan, as a sentence; "" if it may."""
    if plan.algorithm.aggregation.local:
        return (
            "a budget is of what sums give away, and in this plan each contribution is private by itself, before the "
            "server has it: serve it without a budget, and let sites hold it to their maximum_epsilon"
        )
    try:
        served(plan)
    except SettingError as error:
        return f"a server with a budget runs only plans whose epsilon is known: {error}"
    return ""
