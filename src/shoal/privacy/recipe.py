"""From epsilon at delta to the aggregation that spends no more."""

from __future__ import annotations

import math
from dataclasses import replace

from shoal.aggregation import Aggregation, DiscreteGaussian, Gaussian, MatrixGaussian, PlainSum, SecureSum
from shoal.cohort import Sampler
from shoal.errors import SettingError
from shoal.matrices import Matrix
from shoal.noise.tables import LARGEST
from shoal.privacy.answers import noise_multiplier, spent
from shoal.privacy.releases import Releases
from shoal.settings import number, whole
from shoal.steps import Clip, Quantize

_FINEST = 16
"""A step of 2**-16 of the norm: with a million numbers its rounding moves a sum by less than a hundredth of that."""


def private_mean(
    *, epsilon: float, delta: float, norm: float, rounds: int, clients: int,
    cohort: int | float | Sampler | None = None, population: int | None = None, threshold: int | None = None,
    matrix: Matrix | None = None,
) -> Aggregation:  # fmt: skip
    """The mean of the clients' values with the least noise that spends `epsilon` at `delta` in `rounds` rounds.

    Each value is clipped to `norm`, and the noised sum is divided by `clients`: a public number, how many contributions
    a round is to have. `cohort` is the plan's; without one a client counts as being in each round, which is also what
    holds on a server, whatever its cohorts are. `population` is how many clients there are in all, for a cohort of a
    size, or for a sample with a threshold. With a `threshold` sums are secure, and the noise is added to integers: the
    grid's step is a power of two of the norm. With a `matrix` noise is correlated between rounds, for clients that a
    `Rotation` keeps apart. SettingError if no noise is enough.

    >>> print(private_mean(epsilon=2, delta=1e-6, norm=1.0, rounds=100, clients=50))
    Clip(norm=1.0) >> PlainSum() >> Gaussian(multiplier=22.32, clients=50)
    """
    bound = number(norm, "the norm that contributions are clipped to is over 0", lambda v: v > 0)
    if threshold is not None:
        threshold = whole(threshold, "a secure sum has a threshold of at least two clients", least=2)
    discrete = threshold is not None and matrix is None
    releases = Releases(1.0, rounds, cohort, threshold or 0, discrete, matrix=matrix)
    multiplier = _enough(releases, epsilon=epsilon, delta=delta, population=population)
    if matrix is not None:
        finish = MatrixGaussian(multiplier, clients=clients, matrix=matrix)
        if threshold is None:
            return Clip(bound) >> PlainSum() >> finish
        return Clip(bound) >> Quantize(bound * 2.0**-_FINEST) >> SecureSum(threshold) >> finish
    if threshold is None:
        return Clip(bound) >> PlainSum() >> Gaussian(multiplier, clients=clients)
    step = bound * _fineness(multiplier)
    return Clip(bound) >> Quantize(step) >> SecureSum(threshold) >> DiscreteGaussian(multiplier, clients=clients)


def _enough(releases: Releases, *, epsilon: float, delta: float, population: int | None) -> float:
    """A multiplier of four digits that is enough: searched for on a coarse grain of losses, held to the fine one."""
    multiplier = noise_multiplier(releases, epsilon=epsilon, delta=delta, clients=population)
    while True:
        multiplier = _rounded_up(multiplier)
        if spent(replace(releases, multiplier=multiplier), delta=delta, clients=population).epsilon <= epsilon:
            return multiplier
        multiplier *= 1.001


def _rounded_up(value: float) -> float:
    """The next larger number of four digits.

    >>> _rounded_up(1.23401), _rounded_up(23.17)
    (1.235, 23.17)
    """
    places = 3 - math.floor(math.log10(value))
    return math.ceil(round(value * 10**places, 6)) / 10**places


def _fineness(multiplier: float) -> float:
    """The step of the grid over the norm: fine, and with noise that its tables hold even if rounding doubles it."""
    finest = math.floor(math.log2(LARGEST / 2 / multiplier))
    if finest < 0:
        raise SettingError(
            f"a noise multiplier of {multiplier:g} is needed, and on a grid it is at most {LARGEST / 2:,.0f}: ask for "
            "fewer rounds or a larger epsilon"
        )
    return 2.0 ** -min(_FINEST, finest)
