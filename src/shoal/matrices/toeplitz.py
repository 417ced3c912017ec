"""Matrices whose columns are one column, shifted: their sensitivity, the error of their noise, and the best ones.

The best ones are found here, in a second, by the quasi-Newton method of SciPy: `jax-privacy` 2.0.0, from which the
objectives are, finds the same numbers but takes half a minute to load and minutes for a hundred bands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

Column = np.ndarray[Any, Any]
"""The first column of a lower triangular Toeplitz matrix, as long as it is not zero."""


def sensitivity(column: Column, *, rounds: int, separation: int) -> float:
    """The L2 norm of what one client adds, that comes again after `separation` rounds at the earliest.

    For a column that is nowhere negative and never rises: then the worst is to come at once and as often as possible
    (Kalinin and Lampert 2024, "Banded square root matrix factorization for differentially private model training",
    theorem 2).

    >>> sensitivity(np.ones(1), rounds=10, separation=3)
    2.0
    """
    padded = np.zeros(-(-rounds // separation) * separation)
    padded[: len(column)] = column[:rounds]
    added = padded.reshape(-1, separation).cumsum(axis=0).reshape(-1)[:rounds]
    return float(np.sqrt(added @ added))


def error(summed: Column) -> float:
    """The deviation of sums of noise so far over all rounds; `summed` is the first column of their matrix."""
    return float(np.sqrt(np.mean(np.cumsum(summed**2))))


def summed_inverse(column: Column, rounds: int) -> Column:
    """The first column of A C^-1, where A adds up the rounds so far."""
    return _filter(np.ones(1), column, np.ones(rounds))


def buffered_column(weights: Column, decays: Column, rounds: int) -> Column:
    """1, then sums of weights * decays**k."""
    powers = decays[:, None] ** np.arange(rounds - 1)
    return np.concatenate([np.ones(1), weights @ powers])


def buffered_summed_inverse(weights: Column, decays: Column, rounds: int) -> Column:
    """`summed_inverse` of a `buffered_column`, by its generating function: a fraction of two short polynomials."""
    factors = [np.array([1.0, -decay]) for decay in decays]
    above, below = _product(factors), _product(factors)
    for place, weight in enumerate(weights):
        below[1:] += weight * _product([*factors[:place], *factors[place + 1 :]])
    return _filter(above, below, np.ones(rounds))


@lru_cache(maxsize=32)
def best_bands(rounds: int, bands: int) -> Column:
    """The column of so many numbers, the first of them 1, with the least noise for clients that come once in a band.

    Choquette-Choo et al. 2023, "(Amplified) banded matrix factorization", section 4, with the mean of squares over all
    rounds as error.
    """
    times = np.arange(rounds, 0, -1) / rounds

    def loss(column: Column) -> tuple[float, Column]:
        summed = summed_inverse(column, rounds)
        weighted, again = times * summed, _filter(np.ones(1), column, summed)
        squares = weighted @ summed
        slope = -2 * np.array([weighted[band:] @ again[: rounds - band] for band in range(bands)])
        norm = column @ column
        return float(np.log(squares * norm)), slope / squares + 2 * column / norm

    found = _least(loss, _root(bands), bounds=[(1e-6, 2.0)] * bands, slopes=True)
    return _falling(found / found[0])


@lru_cache(maxsize=32)
def best_buffers(rounds: int, separation: int, buffers: int) -> tuple[Column, Column]:
    """The weights and decays of so many buffers with the least noise.

    McMahan, Xu and Zhang 2024, "A hassle-free algorithm for private learning in practice": the noise of Dvijotham et
    al. 2024 ("Efficient and near-optimal noise generation for streaming differential privacy"), with the sensitivity of
    clients that come again.
    """

    def parts(point: Column) -> tuple[Column, Column]:
        weights, decays = np.exp(point[:buffers]), 1 / (1 + np.exp(-point[buffers:]))
        return weights / max(1.0, weights.sum()), decays  # so that the column never rises

    def loss(point: Column) -> float:
        weights, decays = parts(point)
        column = buffered_column(weights, decays, rounds)
        noise = error(buffered_summed_inverse(weights, decays, rounds))
        return float(np.log(noise * sensitivity(column, rounds=rounds, separation=separation)))

    lasting = float(min(rounds, separation) + 1) ** ((np.arange(buffers) + 0.5) / buffers)  # rounds, from few to all
    first = np.concatenate([np.full(buffers, np.log(0.5 / buffers)), np.log(lasting)])
    bounds = [(-9.0, 0.0)] * buffers + [(-9.0, float(np.log(100.0 * rounds)))] * buffers
    return parts(_least(loss, first, bounds=bounds, slopes=False))


def _root(count: int) -> Column:
    """The first numbers of the column whose matrix, squared, adds up: C(2k, k) / 4^k (Fichtenberger et al. 2023)."""
    steps = np.arange(1, count)
    return np.concatenate([np.ones(1), np.cumprod((2 * steps - 1) / (2 * steps))])


def _falling(column: Column) -> Column:
    """The column without a rise in the last digits, on which its sensitivity rests."""
    return np.minimum.accumulate(column)


def _product(factors: list[Column]) -> Column:
    whole = np.ones(1)
    for factor in factors:
        whole = np.convolve(whole, factor)
    return whole


def _filter(above: Column, below: Column, numbers: Column) -> Column:
    from scipy.signal import lfilter  # 0.3 s to import

    return np.asarray(lfilter(above, below, numbers))


def _least(loss: Callable[[Column], Any], begin: Column, *, bounds: list[tuple[float, float]], slopes: bool) -> Column:
    from scipy.optimize import minimize

    return minimize(loss, begin, jac=slopes, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500}).x
