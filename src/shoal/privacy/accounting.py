"""Epsilon at delta of what a run releases. The arithmetic is that of dp-accounting."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from shoal.cohort import Everyone, Fixed, Fraction, Poisson, Rotation
from shoal.errors import SettingError
from shoal.extras import needed
from shoal.matrices import Matrix
from shoal.privacy import skellam
from shoal.privacy.releases import Releases, Shared, Whoever

Accountant = Literal["PLD", "RDP"]
Losses = Callable[..., tuple[float, str]]

ADDED_OR_REMOVED = "one client, with all its data, added or removed"
REPLACED = "one client, with all its data, replaced by another"
ZEROED = "one client's contributions replaced by zeros"

HOPELESS = 50.0
"""From here on no epsilon means anything, and a distribution of privacy losses would fill the memory."""
# The part of delta that is set aside for the rounds in which one client decides whether a sum is released at all.
_SET_ASIDE = 1e-3
_ORDERS = (*range(2, 33), 40, 48, 64, 96, 128, 256, 512, 1024)
_FROM_TWO = (*(tenths / 10 for tenths in range(20, 110)), *range(11, 65), 128, 256, 512, 1024)
"""The orders that dp-accounting begins with, from 2 on."""
FINE, COARSE = 1e-4, 1e-3
"""The grain of privacy losses: a coarser one is ten times as fast, and a few thousandths above at most."""


@dataclass(frozen=True)
class Spent:
    """What a run gives away of one client: epsilon at delta, and all that this rests on.

    `relation` says which two runs cannot be told apart, `events` what was added up, `accountant` how; `why` is the
    reason where epsilon is infinite; `moves` what the noise multiplier is measured by. It prints as lines for people.
    """

    epsilon: float
    delta: float
    relation: str
    accountant: str
    rounds: int
    noise_multiplier: float | None
    sampling: str
    events: str
    why: str | None = None
    moves: str = "moves the sum by"

    def lines(self) -> Iterator[tuple[str, str]]:
        """A word and a text for each line."""
        if self.why is not None:
            yield "epsilon", f"none: {self.why}"
            return
        yield "epsilon", f"{self.epsilon:.4g} at delta {self.delta:g}"
        yield "between", f"runs that differ in this: {self.relation}"
        if self.noise_multiplier is not None:
            yield "noise", f"{self.noise_multiplier:.6g} times what one client, added or removed, {self.moves}"
        yield "sampling", self.sampling
        yield "events", f"{self.events}, added up by {self.accountant}"

    def __str__(self) -> str:
        return "\n".join(f"{word:<12}{text}" for word, text in self.lines())


def price(
    releases: Releases, *, clients: int | None, delta: float, colluding: int = 0, accountant: Accountant = "PLD",
    grain: float = FINE,
) -> Spent:  # fmt: skip
    """What releases give away of one of `clients` clients."""
    losses = partial(normal, rounds=releases.events, accountant=accountant, grain=grain)
    if releases.shared is not None:
        return _skellam(releases, releases.shared, delta, colluding)
    if releases.matrix is not None:
        return _correlated(releases, releases.matrix, delta, losses)
    if releases.discrete:
        return _discrete(releases, delta)
    cohort = releases.cohort
    match cohort:
        case Everyone() | Fraction(1.0) | Poisson(1.0):
            relation = ZEROED if releases.threshold else ADDED_OR_REMOVED
            return _composed(releases, delta, losses, relation, "everyone in each round")
        case Poisson(rate):
            return _poisson(releases, rate, clients, delta, losses)
        case Fixed() | Fraction():
            return _fixed(releases, delta, clients)
        case Rotation(_, apart):
            sampling = f"{cohort}: each client at most once in {apart:,} rounds, without amplification"
            return _composed(releases, delta, losses, ZEROED, sampling)
        case Whoever():
            sampling = f"{cohort}, and the server knows who: no amplification is claimed"
            return _composed(releases, delta, losses, ZEROED, sampling)
        case _:
            sampling = f"{cohort}, which the accountant does not know: no amplification is claimed"
            return _composed(releases, delta, losses, ZEROED, sampling)


def _composed(releases: Releases, delta: float, losses: Losses, relation: str, sampling: str) -> Spent:
    """A client in every round, as far as anyone knows."""
    epsilon, how = losses(releases.multiplier, 1.0, delta=delta)
    return _spent(releases, epsilon, delta, relation, how, sampling, f"Gaussian({releases.multiplier:.6g})")


def _poisson(releases: Releases, rate: float, clients: int | None, delta: float, losses: Losses) -> Spent:
    """Each client by a coin of its own: an outsider does not know who was in the sum."""
    sampling = f"each client with probability {rate:.6g} in each round, by itself"
    event = f"Gaussian({releases.multiplier:.6g}) of a Poisson sample of {rate:.6g}"
    if not releases.threshold:
        epsilon, how = losses(releases.multiplier, rate, delta=delta)
        return _spent(releases, epsilon, delta, ADDED_OR_REMOVED, how, sampling, event)
    # A round that one client is missing from is released or not by whether that one came: then it shows.
    others = _known(clients) - 1
    tips = releases.rounds * rate * _binomial(releases.threshold - 1, others, rate)
    epsilon, how = losses(releases.multiplier, rate, delta=delta * (1 - _SET_ASIDE))
    if tips and math.log(tips) + epsilon > math.log(delta * _SET_ASIDE):
        sampling += ", near the sum's threshold, which tells who came: no amplification is claimed"
        return _composed(releases, delta, losses, ZEROED, sampling)
    return _spent(releases, epsilon, delta, ADDED_OR_REMOVED, how, sampling, event)


def _fixed(releases: Releases, delta: float, clients: int | None) -> Spent:
    """A cohort of known size: whoever leaves it is replaced, so the sum moves by twice the sensitivity."""
    population = _known(clients)
    cohort = releases.cohort.most(population)
    epsilon = _replaced(releases.multiplier / 2, population, cohort, releases.rounds, delta)
    sampling = f"{cohort:,} of {population:,} clients in each round, without replacement"
    event = f"Gaussian({releases.multiplier / 2:.6g}) of {cohort:,} of {population:,}"
    return _spent(releases, epsilon, delta, REPLACED, "RDP", sampling, event)


def _correlated(releases: Releases, matrix: Matrix, delta: float, losses: Losses) -> Spent:
    """All rounds together are one sum with normal noise, C x + z: what is released is made of that."""
    epsilon, how = losses(releases.multiplier, 1.0, delta=delta)
    sampling = f"{releases.cohort}: each client at most once in {matrix.separation:,} rounds, without amplification"
    return Spent(
        epsilon, delta, ZEROED, how, releases.rounds, releases.multiplier, sampling,
        f"Gaussian({releases.multiplier:.6g}), once for all {matrix.rounds:,} rounds",
        moves=f"moves C x by, x being the sums of all rounds and C {matrix}",
    )  # fmt: skip


def _discrete(releases: Releases, delta: float) -> Spent:
    """Noise on a grid: its Renyi divergences are at most those of normal noise (Canonne, Kamath and Steinke 2020)."""
    epsilon, how = normal(releases.multiplier, 1.0, rounds=releases.events, delta=delta, accountant="RDP", grain=FINE)
    sampling = f"{releases.cohort}: no amplification is claimed for noise on a grid"
    event = f"DiscreteGaussian({releases.multiplier:.6g})"
    return _spent(releases, epsilon, delta, ZEROED, how, sampling, event)


def _skellam(releases: Releases, shared: Shared, delta: float, colluding: int) -> Spent:
    """Noise of the server, or noise that clients add: only as much of that counts as honest clients must have added."""
    if shared.at_least and colluding >= shared.at_least:
        raise SettingError(
            f"the noise is whole with {shared.at_least} shares, and {colluding} clients who know theirs leave none: "
            f"at most {shared.at_least - 1} can collude"
        )
    honest = (shared.at_least - colluding) / shared.at_least if shared.at_least else 1.0
    variance = (releases.multiplier * shared.norm) ** 2 * honest
    losses = [
        releases.events * skellam.renyi(order, norm=shared.norm, variance=variance, size=shared.size)
        for order in skellam.ORDERS
    ]
    epsilon, _ = needed("dp_accounting.rdp", "dp").compute_epsilon(skellam.ORDERS, losses, delta)
    if not shared.at_least:
        sampling = f"{releases.cohort}: no amplification is claimed for noise on a grid"
        event = f"Skellam({releases.multiplier:.6g})"
        return _spent(releases, float(epsilon), delta, ZEROED, "RDP", sampling, event)
    sampling = f"{releases.cohort}: no amplification is claimed for noise in shares"
    colluders = f", {colluding} of whom tell the server theirs" if colluding else ""
    event = f"Skellam noise of {shared.at_least:,} clients{colluders}"
    return _spent(releases, float(epsilon), delta, ZEROED, "RDP", sampling, event)


def _spent(
    releases: Releases, epsilon: float, delta: float, relation: str, how: str, sampling: str, event: str
) -> Spent:  # fmt: skip
    events = f"{releases.events:,} times {event}"
    return Spent(epsilon, delta, relation, how, releases.rounds, releases.multiplier, sampling, events)


@lru_cache(maxsize=256)
def normal(
    multiplier: float, rate: float, *, rounds: int, delta: float, accountant: Accountant, grain: float
) -> tuple[float, str]:
    """Epsilon of sums with normal noise over Poisson samples, one client added or removed; and how it was found."""
    dp, rdp = needed("dp_accounting", "dp"), needed("dp_accounting.rdp", "dp")
    event, accounts = dp.GaussianDpEvent(multiplier), rdp.RdpAccountant()
    if rate < 1:  # whose divergences of orders near 1 are sums that do not converge
        event, accounts = dp.PoissonSampledDpEvent(rate, event), rdp.RdpAccountant(_FROM_TWO)
    bound = float(accounts.compose(event, rounds).get_epsilon(delta))
    if accountant == "RDP" or bound > HOPELESS:
        return bound, "RDP"
    grain *= max(1.0, (0.5 / multiplier) ** 2)  # with little noise losses are large, and so would their number be
    losses = needed("dp_accounting.pld", "dp").PLDAccountant(value_discretization_interval=grain)
    return float(losses.compose(event, rounds).get_epsilon(delta)), "PLD"


@lru_cache(maxsize=256)
def _replaced(multiplier: float, population: int, cohort: int, rounds: int, delta: float) -> float:
    """Epsilon of sums over samples without replacement, one client replaced by another."""
    dp, rdp = needed("dp_accounting", "dp"), needed("dp_accounting.rdp", "dp")
    event = dp.SampledWithoutReplacementDpEvent(population, cohort, dp.GaussianDpEvent(multiplier))
    found = rdp.RdpAccountant(_ORDERS, neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
    return float(found.compose(event, rounds).get_epsilon(delta))


def _known(clients: int | None) -> int:
    if clients is None:
        raise SettingError("epsilon depends on how many clients the population has: say clients=..., or --clients")
    return clients


def _binomial(count: int, trials: int, rate: float) -> float:
    """The probability of so many successes."""
    if not 0 <= count <= trials:
        return 0.0
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(rate) + (trials - count) * math.log1p(-rate))
