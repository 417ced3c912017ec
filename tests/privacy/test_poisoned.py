"""No client, poisoned ones included, moves what is released by more than the plan declares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import shoal
from shoal import (
    Clip,
    DiscreteGaussian,
    Gaussian,
    Poisson,
    Quantize,
    Rotate,
    SecureSum,
    TopK,
    Weigh,
)
from shoal.aggregation import PlainSum
from shoal.errors import SettingError
from tests.privacy.sending import Sending, SendingRows

SIZE, CLIENTS = 6, 8
CHAINS = {
    "floats": Clip(1.0) >> PlainSum() >> Gaussian(1e-3, clients=1),
    "weighed": Clip(2.0) >> Weigh(5) >> PlainSum() >> Gaussian(1e-3, clients=1),
    "groups": Clip(1.0, groups=("w",)) >> PlainSum() >> Gaussian(1e-3, clients=1),
    "turned": TopK(0.5) >> Clip(1.0) >> Rotate() >> Quantize(0.01) >> PlainSum() >> Gaussian(1e-3, clients=1),
    "grid": Clip(1.0) >> Quantize(0.01) >> PlainSum() >> DiscreteGaussian(0.3, clients=1),
    "coin": Clip(1.0) >> Quantize(0.01, "stochastic") >> SecureSum(threshold=2) >> DiscreteGaussian(0.3, clients=1),
}
POISONS = [np.nan, np.inf, -np.inf, 1e30, 3e38, -3e38, 1e-40, 2.0**127, 0.0]
COHORTS = [None, 5, Poisson(0.6)]

numbers = st.one_of(st.floats(width=32), st.sampled_from([*POISONS, 1.0, -2.0]))
values = arrays.arrays(np.float32, SIZE, elements=numbers)


def released(chain, data, *, cohort=None, seed=0):
    """What a simulation makes public of clients that send their own vectors, in plain Python."""
    plan = shoal.Plan(Sending(chain, SIZE), rounds=1, cohort=cohort)
    result = shoal.simulate(plan, data, seed=seed, runtime="local", progress="off")
    return np.asarray(result.vector, np.float64), result.history.rows[0]


def moved_at_most(chain, factor=1.0):
    """The sensitivity, and a little for float32 sums."""
    return factor * chain.sensitivity(Sending(chain, SIZE).layout) * (1 + 1e-6) + 1e-5


@pytest.mark.parametrize("name", CHAINS)
@settings(max_examples=12)
@given(
    others=arrays.arrays(np.float32, (CLIENTS - 1, SIZE), elements=st.floats(-3, 3, width=32)),
    first=values, second=values, cohort=st.sampled_from(COHORTS), seed=st.integers(0, 20),
)  # fmt: skip
def test_no_replacement_of_a_client_moves_a_release_by_more_than_two_sensitivities(
    name, others, first, second, cohort, seed
):
    chain, data = CHAINS[name], {f"c{place}": value for place, value in enumerate(others)}
    found = [
        released(chain, {**data, "x": value}, cohort=cohort, seed=seed)[0] for value in (first, second, np.zeros(SIZE))
    ]
    assert all(np.isfinite(value).all() for value in found)
    assert np.linalg.norm(found[0] - found[1]) <= moved_at_most(chain, 2)
    assert np.linalg.norm(found[0] - found[2]) <= moved_at_most(chain), "replaced by nothing it is one sensitivity"


@pytest.mark.parametrize("name", ["floats", "groups", "grid"])
def test_no_poisoned_client_moves_a_compiled_release_by_more_than_the_sensitivity(name):
    """Equal and tiny clients go in lockstep lanes, where XLA computes in other ways than for one by itself."""
    chain, random = CHAINS[name], np.random.default_rng(1)
    plan = shoal.Plan(SendingRows(chain, SIZE), rounds=1)
    x = random.normal(size=(CLIENTS, SIZE)).astype(np.float32)

    def release(poison, scale=1.0):
        rows, scales = x.copy(), np.ones((CLIENTS, 1), np.float32)
        rows[3, 1], scales[3] = poison, scale
        rows[3, 2:] *= poison != 0
        population = shoal.Population.from_arrays(rows, scales, groups=np.arange(CLIENTS))
        result = shoal.simulate(plan, population, runtime="compiled", progress="off")
        return np.asarray(result.vector, np.float64), result.history.rows[0]["rejected"]

    nothing, _ = release(0.0, scale=0.0)
    for poison, scale in [*((poison, 1.0) for poison in POISONS), (1e30, 1e30), (1e-30, 1e-30), (3e38, 0.5)]:
        found, rejected = release(poison, scale)
        assert np.linalg.norm(found - nothing) <= moved_at_most(chain)
        assert rejected == (not np.isfinite(np.float32(poison)) or scale > 1)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CHAINS)
def test_a_client_that_is_not_finite_is_zeros_to_the_bit_and_counted(name, poison):
    data = {f"c{place}": np.full(SIZE, place / 9) for place in range(CLIENTS)}
    chain = CHAINS[name]
    bad, row = released(chain, {**data, "c3": np.full(SIZE, poison)})
    zeros, _ = released(chain, {**data, "c3": np.zeros(SIZE)})
    assert bad.tobytes() == zeros.tobytes()
    assert row["rejected"] == 1


@pytest.mark.parametrize("name", [name for name in CHAINS if name != "coin"])  # a secure sum of nobody is none
def test_a_round_in_which_everybody_is_poisoned_releases_the_noise_of_an_empty_one(name):
    chain = CHAINS[name]
    bad, row = released(chain, {f"c{place}": np.full(SIZE, np.nan) for place in range(CLIENTS)})
    empty, none = released(chain, {f"c{place}": np.ones(SIZE) for place in range(CLIENTS)}, cohort=Poisson(1e-9))
    assert (row["rejected"], row["clients"], none["clients"]) == (CLIENTS, 0, 0)
    assert bad.tobytes() == empty.tobytes()
    assert bad.any()


@pytest.mark.parametrize("data", [np.ones(1), np.ones(SIZE + 1), np.ones((1, SIZE)), np.float32(1)], ids=str)
def test_a_value_of_another_size_is_refused_before_it_is_added(data):
    with pytest.raises(SettingError, match="a vector of 6 numbers"):
        released(CHAINS["floats"], {"a": np.ones(SIZE), "b": data})
