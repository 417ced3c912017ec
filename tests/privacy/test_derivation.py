"""What `shoal plan` says of sensitivity, noise and signal, beside the formulas themselves and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

import shoal
from shoal import (
    AdaptiveClip,
    Clip,
    Collect,
    DiscreteGaussian,
    Gaussian,
    LocalGaussian,
    LocalLaplace,
    MatrixGaussian,
    Median,
    NoiseShare,
    Over,
    PlainSum,
    Quantize,
    Rotate,
    Round,
    SecureSum,
    Skellam,
    TopK,
    Weigh,
    privacy,
)
from tests.privacy.sending import Sending

SIZE = 10_000
BOUNDED = [
    Clip(0.5),
    Clip(3.0) >> Quantize(0.01),
    Clip(3.0) >> Quantize(0.01, "stochastic"),
    TopK(0.2) >> Clip(1.5) >> Rotate() >> Quantize(1e-3),
    Clip(2.0) >> Round(3) >> Weigh(10),
    AdaptiveClip(0.3) >> Quantize(1e-3),
]
NOISED = {
    "Gaussian": Clip(2.0) >> PlainSum() >> Gaussian(3.0, clients=8),
    "DiscreteGaussian": Clip(2.0) >> Quantize(0.05) >> SecureSum(threshold=2) >> DiscreteGaussian(0.5, clients=8),
    "Skellam": Clip(2.0) >> Quantize(0.05) >> PlainSum() >> Skellam(0.5, clients=8),
    "shares": Clip(2.0) >> Quantize(0.05) >> NoiseShare(2.0, at_least=6) >> SecureSum(threshold=6) >> Over(8),
    "local": Clip(2.0) >> LocalGaussian(2.0, 1e-5) >> PlainSum() >> Over(6),
    "Laplace": LocalLaplace(2.0, norm=1.0) >> PlainSum() >> Over(6),
}


def plan(chain, size=SIZE):
    return shoal.Plan(Sending(chain, size), rounds=1)


@pytest.mark.parametrize("steps", BOUNDED, ids=str)
def test_every_formula_that_is_shown_gives_the_bound_that_is_used(steps):
    chain = steps >> PlainSum() >> shoal.Mean()
    found = privacy.derivation(plan(chain, 500))
    bounds = chain.bounds(plan(chain, 500).algorithm.layout)
    assert [step.bound for step in found.steps] == list(bounds)
    for step in found.steps:
        if math.isfinite(step.bound):
            assert eval(step.formula, {"sqrt": math.sqrt}) == pytest.approx(step.bound, rel=1e-5)
    assert found.sensitivity == bounds[-1]


@pytest.mark.parametrize("name", NOISED)
def test_the_noise_that_is_shown_is_the_noise_that_is_released(name):
    clients = {str(place): np.zeros(SIZE) for place in range(6)}
    found = privacy.derivation(plan(NOISED[name]))
    released = shoal.simulate(plan(NOISED[name]), clients, seed=3, runtime="local").vector
    kurtosis = 3 if name == "Laplace" else 0  # of one client's noise; of six, a sixth
    assert released.std() == pytest.approx(found.released, rel=4 * math.sqrt((2 + kurtosis / 6) / 4 / SIZE))
    assert found.noise == pytest.approx(found.released * NOISED[name].finish.clients)


def test_signal_is_a_mean_as_long_as_one_client_may_be_spread_over_all_numbers():
    chain = Clip(1.0) >> PlainSum() >> Gaussian(2.0, clients=100)
    found = privacy.derivation(plan(chain, 400))
    assert (found.noise, found.released, found.signal) == (2.0, 0.02, 1 / 20)
    assert "signal      0.05 in each number of a mean that is 1 long: 2.5 times the noise" in [
        f"{word:<12}{text}" for word, text in found.lines()
    ]


@pytest.mark.parametrize("chain", [shoal.mean(), Clip(1.0) >> Collect() >> Median()], ids=str)
def test_a_plan_in_which_nothing_bounds_a_sum_derives_nothing(chain):
    assert privacy.derivation(plan(chain)).sensitivity == math.inf
    assert not list(privacy.derivation(plan(chain)).lines())


def test_noise_that_is_correlated_is_that_of_the_rounds_added_up():
    matrix = shoal.matrices.Tree(4, 1)
    chain = Clip(2.0) >> PlainSum() >> MatrixGaussian(1.5, clients=1, matrix=matrix)
    many = shoal.Plan(Sending(chain, SIZE), rounds=4)
    said = dict(privacy.derivation(many).lines())["noise"]
    releases = []
    shoal.simulate(
        many, {"a": np.zeros(SIZE)}, runtime="local", every=1,
        callbacks=[lambda rows, run: releases.append(np.asarray(run.state.vector, np.float64)) or False],
    )  # fmt: skip
    summed = np.cumsum(releases, axis=0)
    assert float(said.split()[0]) == pytest.approx(math.sqrt(np.mean(summed**2)), rel=0.03)


def test_a_norm_that_adapts_is_the_unit_of_what_is_derived():
    chain = AdaptiveClip(0.3) >> PlainSum() >> Gaussian(2.0, clients=10)
    said = dict(privacy.derivation(plan(chain, 8)).lines())
    assert said["noise"].startswith("2 times its setting in each of 9 numbers")
