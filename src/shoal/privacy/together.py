"""What several runs on the same clients give away together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from shoal.cohort import Fixed, Fraction, Poisson
from shoal.errors import SettingError
from shoal.extras import needed
from shoal.plan import Plan
from shoal.privacy import skellam
from shoal.privacy.accounting import COARSE, FINE, HOPELESS, REPLACED, ZEROED, Spent, price
from shoal.privacy.releases import Releases


def together(each: Sequence[Plan | Releases], *, delta: float, clients: int | None = None) -> Spent:
    """What runs with different noise, of different cohorts, give away of one client who was in all of them.

    Where they are priced for different pairs of runs, the sum is for a weaker one that all of them imply: one client's
    contributions made zero. With public divisors that is removing the client, and it is replacing it by one who has
    nothing to say. `clients` is how many there are, for cohorts of a size.

    >>> print(together([Releases(10.0, rounds=50), Releases(20.0, rounds=200)], delta=1e-6).events)
    50 times Gaussian(10) and 200 times Gaussian(20)
    """
    if not each:
        raise SettingError("nothing was released: name at least one run")
    runs = [Releases.of(one) if isinstance(one, Plan) else one for one in each]
    if not all(isinstance(one, Releases) for one in runs):
        raise SettingError("what is added up here are plans and Releases: add up epsilons and deltas of other things")
    if len(runs) == 1:
        return price(runs[0], clients=clients, delta=delta)
    runs = [_unsampled(one) for one in runs]
    found = [price(one, clients=clients, delta=delta, accountant="RDP") for one in runs]
    relations = {one.relation for one in found}
    epsilon, how = _epsilon(runs, found, delta=delta, clients=clients)
    sampling, events = (_joined([getattr(one, name) for one in found]) for name in ("sampling", "events"))
    relation = relations.pop() if len(relations) == 1 else ZEROED
    return Spent(epsilon, delta, relation, how, sum(one.rounds for one in runs), None, sampling, events)


def _epsilon(
    each: Sequence[Releases], found: Sequence[Spent], *, delta: float, clients: int | None
) -> tuple[float, str]:
    """By distributions of losses where all noise is normal and no cohort has a size; else by Renyi divergences."""
    curves = sum(_curve(one, clients) for one in each)
    epsilon, _ = needed("dp_accounting.rdp", "dp").compute_epsilon(skellam.ORDERS, curves, delta)
    tight = all(not (one.discrete or one.shared) and as_found.relation != REPLACED
                for one, as_found in zip(each, found, strict=True))  # fmt: skip
    if not tight or epsilon > HOPELESS:
        return float(epsilon), "RDP"
    grain = FINE if all(_rate(one) == 1 for one in each) else COARSE
    losses = needed("dp_accounting.pld", "dp").PLDAccountant(value_discretization_interval=grain)
    for one in each:
        losses.compose(_event(one), one.events)
    return min((float(losses.get_epsilon(delta)), "PLD"), (float(epsilon), "RDP"))


def _curve(releases: Releases, clients: int | None) -> Any:
    """Renyi divergences of the orders that are proved for all kinds of noise."""
    rdp, dp = needed("dp_accounting.rdp", "dp"), needed("dp_accounting", "dp")
    shared = releases.shared
    if shared is not None:
        variance = (releases.multiplier * shared.norm) ** 2
        of_order = [skellam.renyi(a, norm=shared.norm, variance=variance, size=shared.size) for a in skellam.ORDERS]
        return releases.events * np.asarray(of_order)
    relation, event = dp.NeighboringRelation.ADD_OR_REMOVE_ONE, _event(releases)
    if isinstance(releases.cohort, Fixed | Fraction) and releases.cohort != Fraction(1.0) and not releases.discrete:
        assert clients is not None  # it was priced alone
        relation = dp.NeighboringRelation.REPLACE_ONE
        of_half = dp.GaussianDpEvent(releases.multiplier / 2)
        event = dp.SampledWithoutReplacementDpEvent(clients, releases.cohort.most(clients), of_half)
    return rdp.RdpAccountant(skellam.ORDERS, relation).compose(event, releases.events).rdp


def _event(releases: Releases) -> Any:
    """Normal noise, of a Poisson sample where that amplifies."""
    dp = needed("dp_accounting", "dp")
    event, rate = dp.GaussianDpEvent(releases.multiplier), _rate(releases)
    return event if rate == 1 else dp.PoissonSampledDpEvent(rate, event)


def _unsampled(releases: Releases) -> Releases:
    """A secure sum's threshold can tell who came, so a sample under one counts as everyone."""
    tells = isinstance(releases.cohort, Poisson) and releases.threshold
    return replace(releases, cohort=None) if tells else releases


def _rate(releases: Releases) -> float:
    return releases.cohort.rate if isinstance(releases.cohort, Poisson) and not releases.discrete else 1.0


def _joined(texts: Sequence[str]) -> str:
    """Each text once, in order."""
    return " and ".join(dict.fromkeys(texts))
