"""Questions to the accountant: how much is spent, how much noise is needed, how many rounds there may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from shoal.errors import SettingError
from shoal.plan import Plan
from shoal.privacy.accounting import COARSE, FINE, Accountant, Spent, price
from shoal.privacy.local import LocalReleases, price_local
from shoal.privacy.releases import Releases, why_none
from shoal.settings import number, whole

_LEAST_NOISE = 0.2
_MOST_NOISE = 1e6
_MOST_ROUNDS = 10_000_000


def spent(
    what: Plan | Releases | LocalReleases, *, delta: float, clients: int | None = None, rounds: int | None = None,
    colluding: int = 0, accountant: Accountant = "PLD",
) -> Spent:  # fmt: skip
    """What a plan gives away of one client after all its rounds, or after `rounds` of them.

    `clients` is the size of the population; it is needed where a cohort is a number or a fraction of it, or where a
    secure sum has a threshold. `colluding` clients tell the server their share of the noise. The accountant "PLD" is
    tight, "RDP" is fast; both give an upper bound, and where only one can do it that one does. Epsilon is infinite,
    and `why` says why, for a plan without noise.

    >>> print(f"{spent(Releases(1.0, rounds=1), delta=1e-5).epsilon:.3f}")
    4.377
    """
    delta, clients, colluding = _checked(delta, clients, colluding)
    if accountant not in ("PLD", "RDP"):
        raise SettingError(f"an accountant is 'PLD' or 'RDP', not {accountant!r}")
    if isinstance(what, Plan) and (why := why_none(what)) is not None:
        return Spent(math.inf, delta, "", "", what.rounds if rounds is None else rounds, None, "", "", why)
    return _price(_released(what, rounds), clients=clients, delta=delta, colluding=colluding, accountant=accountant)


def noise_multiplier(
    what: Plan | Releases, *, epsilon: float, delta: float, clients: int | None = None, rounds: int | None = None,
    colluding: int = 0,
) -> float:  # fmt: skip
    """The least noise multiplier, to half a percent, with which a plan spends at most `epsilon`; at least 0.2.

    The plan's own multiplier does not matter. SettingError if no noise is enough, or if clients add their own as much
    as an epsilon of theirs says.

    >>> round(noise_multiplier(Releases(1.0, rounds=1), epsilon=4.3772, delta=1e-5), 2)
    1.0
    """
    delta, clients, colluding = _checked(delta, clients, colluding)
    target = number(epsilon, "epsilon is over 0", lambda v: v > 0)
    releases = _released(what, rounds)
    if isinstance(releases, LocalReleases):
        raise SettingError(
            f"{releases.step} says how much noise it adds: ask privacy.spent about another epsilon in it"
        )

    def holds(multiplier: float, accountant: Accountant) -> bool:
        noised = replace(releases, multiplier=multiplier)
        found = price(noised, clients=clients, delta=delta, colluding=colluding, accountant=accountant, grain=COARSE)
        return found.epsilon <= target

    enough = 1.0
    while not holds(enough, "RDP"):
        enough *= 2
        if enough > _MOST_NOISE:
            raise SettingError(f"no noise gives epsilon {target:g} at delta {delta:g} here: ask for fewer rounds")
    enough = _least(lambda noise: holds(noise, "RDP"), enough, factor=2.0, within=1.05)
    return _least(lambda noise: holds(noise, "PLD"), enough, factor=1.05, within=1.002)


def rounds_for(
    what: Plan | Releases | LocalReleases, *, epsilon: float, delta: float, clients: int | None = None,
    colluding: int = 0,
) -> int:  # fmt: skip
    """The most rounds after which a plan has spent at most `epsilon`: 0 if one is too many, 10 million at most.

    Noise that is correlated between rounds is for all rounds of its matrix: those, or 0.

    >>> rounds_for(Releases(10.0, rounds=1), epsilon=4.8866, delta=1e-6)
    100
    """
    delta, clients, colluding = _checked(delta, clients, colluding)
    target = number(epsilon, "epsilon is over 0", lambda v: v > 0)
    releases = _released(what, None)

    def holds(rounds: int, accountant: Accountant) -> bool:
        planned = replace(releases, rounds=rounds)
        found = _price(planned, clients=clients, delta=delta, colluding=colluding, accountant=accountant, grain=COARSE)
        return found.epsilon <= target

    if isinstance(releases, Releases) and releases.matrix is not None:  # its noise is for all its rounds together
        return releases.matrix.rounds if holds(releases.rounds, "PLD") else 0
    fewest = _most(lambda rounds: holds(rounds, "RDP"), 0)
    return _most(lambda rounds: holds(rounds, "PLD"), fewest)


def _checked(delta: float, clients: int | None, colluding: int) -> tuple[float, int | None, int]:
    delta = number(delta, "delta is over 0 and under 1, and less than one over the clients", lambda v: 0 < v < 1)
    if clients is not None:
        clients = whole(clients, "a population has at least one client", least=1)
        if delta * clients >= 1:
            raise SettingError(
                f"delta {delta:g} lets a mechanism publish one of {clients:,} clients outright: "
                f"ask for a delta under {1 / clients:.1g}"
            )
    return delta, clients, whole(colluding, "a number of clients who collude is at least 0", least=0)


def _released(what: Plan | Releases | LocalReleases, rounds: int | None) -> Releases | LocalReleases:
    if isinstance(what, Plan):
        what = LocalReleases.of(what) if what.algorithm.aggregation.local else Releases.of(what)
    return what if rounds is None else replace(what, rounds=rounds)


def _price(
    releases: Releases | LocalReleases, *, clients: int | None, delta: float, colluding: int, accountant: Accountant,
    grain: float = FINE,
) -> Spent:  # fmt: skip
    if isinstance(releases, LocalReleases):
        return price_local(releases, delta=delta, accountant=accountant, grain=grain)
    return price(releases, clients=clients, delta=delta, colluding=colluding, accountant=accountant, grain=grain)


def _least(holds: Callable[[float], bool], enough: float, *, factor: float, within: float) -> float:
    """The least number, up to a factor of `within`, for which a condition holds that holds from it on."""
    low = enough / factor
    while low > _LEAST_NOISE and holds(low):
        factor *= factor
        enough, low = low, low / factor
    low = max(low, _LEAST_NOISE)
    while enough / low > within:
        middle = math.sqrt(enough * low)
        low, enough = (low, middle) if holds(middle) else (middle, enough)
    return enough


def _most(holds: Callable[[int], bool], least: int) -> int:
    """The largest whole number for which a condition holds that holds up to it; `least` is known to be one."""
    step = 1
    high = least + step
    while high < _MOST_ROUNDS and holds(high):
        least, step = high, step * 2
        high = least + step
    high = min(high, _MOST_ROUNDS + 1)
    while high - least > 1:
        middle = (least + high) // 2
        least, high = (middle, high) if holds(middle) else (least, middle)
    return least
