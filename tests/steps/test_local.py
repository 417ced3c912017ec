"""Local privacy: what each client sends, beside formulas and exact enumerations of what it could have sent."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from shoal import Clip, LocalGaussian, LocalLaplace, Over, PlainSum, RandomizedResponse
from shoal.aggregation import Update
from shoal.algorithms import Local, client_turn, enter, open_round, run_round, start
from shoal.errors import SettingError
from shoal.key import Key
from shoal.noise.source import SecureNoise
from shoal.steps.clip import shortened
from shoal.vector import Layout, Part, norm1

SIZE = 6
LAYOUT = Layout((Part("w", (SIZE,)),))
STEPS = [Clip(2.0) >> LocalGaussian(1.0, 1e-6), LocalLaplace(0.5, norm=3.0), RandomizedResponse(2.0, ones=2)]
DRAWS = 1_000_000
poisoned = arrays.arrays(np.float32, SIZE, elements=st.floats(width=32) | st.sampled_from([np.nan, np.inf, 3e38, 1.0]))


class Dealt:
    """A source of randomness whose coins were dealt before, and whose noise is none."""

    def __init__(self, coins=()):
        self.dealt, self.parts = np.array(coins, bool), 0

    def split(self, *names):
        return self

    def normal(self, like):
        return np.zeros(like.shape, like.dtype)

    laplace = normal

    def coins(self, parts, like):
        self.parts = parts
        return self.dealt


def sent(step, value, key):
    bound = 2.0 if isinstance(step, LocalGaussian) else math.inf
    return step.encode(Update(value, 1, np.float32(1), {}, bound, layout=LAYOUT), None, key)[0].value


def centre(chain, value):
    """What a chain would send without its noise."""
    whole = chain >> PlainSum() >> Over(1)
    states = whole.start(LAYOUT)
    payload, _ = whole.encode(value, examples=1, notes={}, states=states, key=Dealt(), layout=LAYOUT)
    return payload.value.astype(np.float64)


def outcomes(step, value):
    """Every vector that randomized response can send for a value, with its probability."""
    found = defaultdict(float)
    for coins in itertools.product([False, True], repeat=len(value)):
        key = Dealt(coins)
        told = tuple(sent(step, np.array(value, np.float64), key).tolist())
        lie = key.parts / 2**32
        found[told] += math.prod(lie if coin else 1 - lie for coin in coins)
    assert math.fsum(found.values()) == pytest.approx(1)
    return found


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1.0, 8.0, 50.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.1])
def test_normal_noise_is_the_least_that_the_formula_of_balle_and_wang_allows(epsilon, delta):
    z = LocalGaussian(epsilon, delta).multiplier
    here, there = (stats.norm.logcdf(way / (2 * z) - epsilon * z) for way in (1, -1))
    assert math.exp(here) * -math.expm1(epsilon + there - here) == pytest.approx(delta, rel=1e-6)


def test_below_an_epsilon_of_one_there_is_less_noise_than_the_classical_formula_takes():
    for epsilon in (0.1, 0.9):
        assert LocalGaussian(epsilon, 1e-6).multiplier < math.sqrt(2 * math.log(1.25 / 1e-6)) / epsilon


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (LocalGaussian(1.0, 1e-6), stats.norm(scale=2 * 2.0 * LocalGaussian(1.0, 1e-6).multiplier)),
        (LocalLaplace(0.5, norm=3.0), stats.laplace(scale=12.0)),
    ],
    ids=["normal", "Laplace"],
)
def test_noise_has_the_distribution_that_the_bound_and_epsilon_ask_for(step, wanted):
    drawn = sent(step, np.zeros(DRAWS, np.float32), Key.from_seed(1))
    counts, _ = np.histogram(drawn, wanted.ppf(np.linspace(0, 1, 201)))
    assert stats.chisquare(counts).pvalue > 1e-4
    assert drawn.var() == pytest.approx(wanted.var(), rel=0.01)
    assert step.deviation(2.0, LAYOUT) == pytest.approx(wanted.std())


@given(first=poisoned, second=poisoned)
def test_no_replacement_of_a_client_moves_normal_noise_by_more_than_it_is_made_for(first, second):
    moved = np.linalg.norm(centre(STEPS[0], first) - centre(STEPS[0], second))
    assert moved <= 2 * 2.0  # the deviation is the multiplier times this


@given(first=poisoned, second=poisoned)
def test_no_replacement_of_a_client_changes_the_density_of_laplace_noise_by_more_than_e_to_the_epsilon(first, second):
    step = STEPS[1]
    moved = np.abs(centre(step, first) - centre(step, second)).sum()
    assert moved / step.scale <= step.epsilon


@pytest.mark.parametrize("large", [0.0, 1e5, 3e38, np.nan])
def test_a_long_traced_value_is_no_longer_than_the_l1_norm(large):
    value = np.random.default_rng(0).normal(size=100_001).astype(np.float32)
    value[7] = large
    short = jax.jit(lambda value: shortened(value, norm1(value), limit=3.0))(value)
    length = np.abs(np.asarray(short, np.float64)).sum()
    assert length <= 3.0
    assert length == pytest.approx(3.0 if large < 1e6 else 0.0, rel=1e-4)


@pytest.mark.parametrize("ones", [1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_no_answers_are_likelier_by_more_than_e_to_the_epsilon_for_one_client_than_for_another(size, ones):
    step = RandomizedResponse(1.5, ones=ones)
    possible = [np.array(value) for value in itertools.product([0.0, 1.0], repeat=size)]
    possible += [np.full(size, odd) for odd in (np.nan, np.inf, -7.0)]
    every = [outcomes(step, value) for value in possible]
    assert all(len(one) == 2**size for one in every)
    most = max(one[told] / other[told] for one, other in itertools.product(every, repeat=2) for told in one)
    assert most <= math.exp(1.5) * (1 + 1e-12)
    assert most == pytest.approx(math.exp(1.5), rel=1e-6)  # and no more noise than that


@pytest.mark.parametrize("value", [[1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0]])
@pytest.mark.parametrize("epsilon", [1e-3, 1.0, 20.0])
def test_answers_are_right_on_average_and_as_wrong_as_is_said(value, epsilon):
    step = RandomizedResponse(epsilon, ones=2)
    found = outcomes(step, value)
    told, chance = np.array(list(found)), np.array(list(found.values()))
    mean = chance @ told
    np.testing.assert_allclose(mean, value, atol=1e-9 / epsilon)
    layout = Layout((Part("w", (len(value),), "float64"),), "float64")
    deviation = step.deviation(math.inf, layout)
    np.testing.assert_allclose(np.sqrt(chance @ (told - mean) ** 2), deviation, rtol=1e-6)


def test_only_the_first_of_too_many_yeses_count():
    told = outcomes(RandomizedResponse(20.0, ones=2), [0.2, 1.0, 0.7, 1.0])
    assert np.round(max(told, key=told.get)).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("chain", STEPS, ids=str)
def test_numpy_and_a_compiled_call_send_the_same(chain):
    whole = chain >> PlainSum() >> Over(1)
    value = np.array([0.9, 0, 0, 1.5, -3, 0.7], np.float32)

    def encode(value, key):
        states = whole.start(LAYOUT)
        return whole.encode(value, examples=5, notes={"loss": value[:2]}, states=states, key=key, layout=LAYOUT)[0]

    plain = encode(value, Key.from_seed(4))
    traced = jax.jit(encode)(jnp.asarray(value), Key.from_seed(4).traceable())
    np.testing.assert_allclose(plain.value, traced.value, rtol=1e-5)
    assert plain.value.dtype == np.float32
    assert (plain.weight, plain.notes, plain.clients) == (0, {}, 1)
    assert encode(value.astype(np.float64), Key.from_seed(4)).value.dtype == np.float64


@pytest.mark.parametrize("chain", STEPS, ids=str)
def test_a_source_of_secure_noise_takes_the_place_of_a_key(chain):
    step, like = chain.steps[-1], np.zeros(50_000, np.float32)
    noise = SecureNoise()
    first, second = (sent(step, like, noise) for _ in range(2))
    assert not np.array_equal(first, second)
    layout = Layout((Part("w", (like.size,)),))
    assert first.std() == pytest.approx(step.deviation(2.0, layout), rel=0.05)


class Reader:
    """An algorithm that sends a client's number as it is."""

    layout, traceable = Layout((Part("yes", (1,)),)), False

    def __init__(self, chain):
        self.aggregation = chain >> PlainSum() >> Over(clients=1)

    def init(self, key):
        return np.zeros(1)

    def enter(self):
        return None

    def broadcast(self, state, round):
        return None

    def local(self, message, data, client_state, key):
        return Local(np.array([data], np.float32), 1, None, {"seen": np.array([data], np.float32)})

    def update(self, state, result, round):
        return result


@pytest.mark.parametrize("chain", STEPS, ids=str)
def test_a_client_whose_data_is_not_finite_sends_what_one_with_zeros_sends(chain):
    algorithm = Reader(chain)
    call = open_round(algorithm, start(algorithm, Key.from_seed(0)))
    spoilt, zero = (client_turn(algorithm, call, v, enter(algorithm), Key.from_seed(1))[0] for v in (math.nan, 0.0))
    assert spoilt.clients == 1
    assert spoilt.value.any()
    assert np.array_equal(spoilt.value, zero.value)


def test_a_round_rejects_nobody_and_divides_by_the_public_number():
    algorithm = Reader(RandomizedResponse(50.0))
    data = {"a": 1.0, "b": math.nan, "c": 1.0}
    states = dict.fromkeys(data, enter(algorithm))
    done = run_round(algorithm, start(algorithm, Key.from_seed(0)), data, states, Key.from_seed(1))
    assert done.rejected == ()
    assert int(done.report.clients) == 3
    assert not done.report.metrics
    np.testing.assert_allclose(done.run.state, 2.0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: LocalGaussian(0.0, 1e-6),
        lambda: LocalGaussian(1e-7, 1e-6),
        lambda: LocalGaussian(51.0, 1e-6),
        lambda: LocalGaussian(1.0, 0.0),
        lambda: LocalGaussian(1.0, 1.0),
        lambda: LocalLaplace(-1.0, norm=1.0),
        lambda: LocalLaplace(1.0, norm=math.inf),
        lambda: RandomizedResponse(1e-6),
        lambda: RandomizedResponse(51.0),
        lambda: RandomizedResponse(1.0, ones=0),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(SettingError):
        wrong()
