"""Simulated noise: what reports call it, and how a small cohort stands in for the large one of a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from shoal.aggregation import Aggregation, SecureSum
from shoal.cohort import Fixed
from shoal.errors import SettingError, UnsupportedError
from shoal.plan import Plan
from shoal.settings import whole

SIMULATED = "simulated"


def simulated(plan: Plan, small_cohort: int | None) -> tuple[Plan, Mapping[str, str]]:
    """The plan as a simulation runs it, and what every row of its history says of its noise; SettingError for no plan.

    >>> from shoal import Clip, FedAvg, Gaussian, PlainSum, models
    >>> chain = Clip(1.0) >> PlainSum() >> Gaussian(1.0, clients=1000)
    >>> simulated(Plan(FedAvg(models.logistic(3), aggregation=chain), rounds=9), 50)[1]
    {'noise': 'simulated, scaled as in cohorts of 1,000'}
    """
    if not isinstance(plan, Plan):
        raise SettingError(f"simulate takes a plan: write Plan({type(plan).__name__}(...), rounds=...)")
    aggregation = plan.algorithm.aggregation
    if small_cohort is not None:
        said = f"{SIMULATED}, scaled as in cohorts of {_clients(aggregation):,}"
        return scaled(plan, small_cohort), {"noise": said}
    return plan, {"noise": SIMULATED} if aggregation.private else {}


def scaled(plan: Plan, small_cohort: int) -> Plan:
    """The plan with cohorts of `small_cohort` clients and noise that is as much smaller than the plan's as they are.

    So the mean of a small cohort is as noisy as that of the plan's, the number of clients that its finish divides by
    (the noise cohort of Granqvist et al. 2024, "pfl-research"). Thresholds and minimums shrink with it. It gives away
    far more than the plan does, so it is for simulations alone. SettingError for a plan to whose sum no server adds
    noise.

    >>> from shoal import Clip, FedAvg, Gaussian, PlainSum, models
    >>> chain = Clip(1.0) >> PlainSum() >> Gaussian(1.0, clients=1000)
    >>> small = scaled(Plan(FedAvg(models.logistic(3), aggregation=chain), rounds=9), 50)
    >>> small.algorithm.aggregation.finish
    Gaussian(multiplier=0.05, clients=50)
    """
    aggregation: Aggregation = plan.algorithm.aggregation
    clients = _clients(aggregation)
    small = whole(small_cohort, "a small cohort has at least one client", least=1)
    if small > clients:
        raise SettingError(f"a small cohort has at most the {clients:,} clients that the noise is for, not {small:,}")
    part = small / clients
    finish: Any = aggregation.finish
    meeting = aggregation.meeting
    if isinstance(meeting, SecureSum):
        meeting = SecureSum(max(2, math.ceil(meeting.threshold * part)))
    finish = replace(finish, multiplier=finish.multiplier * part, clients=small)
    algorithm: Any = plan.algorithm
    if "aggregation" not in getattr(algorithm, "__dataclass_fields__", {}):
        raise UnsupportedError(
            f"{type(algorithm).__name__} has no field `aggregation` to scale the noise of: leave small_cohort out"
        )
    algorithm = replace(algorithm, aggregation=replace(aggregation, meeting=meeting, finish=finish))
    sampler: Any = plan.sampler
    cohort = replace(sampler, clients=small) if hasattr(sampler, "clients") else Fixed(small)
    return replace(plan, algorithm=algorithm, cohort=cohort, min_clients=math.ceil(plan.min_clients * part))


def _clients(aggregation: Aggregation) -> int:
    """The clients that the server's noise is for; SettingError if it adds none."""
    finish: Any = aggregation.finish
    if not (aggregation.private and hasattr(finish, "multiplier")):
        raise SettingError(
            f"small_cohort scales the noise that a server adds, and {type(finish).__name__} adds none: leave it out, "
            "or finish with Gaussian(multiplier, clients=...)"
        )
    return finish.clients
