"""Adaptive clipping beside algorithm 1 of Andrew et al. 2021 in plain NumPy, and beside what it promises."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.linear_model import SGDClassifier

import shoal
from shoal import (
    AdaptiveClip,
    Clip,
    Collect,
    DiscreteGaussian,
    Gaussian,
    Mean,
    Median,
    NoiseShare,
    Over,
    PlainSum,
    Quantize,
    RandomizedResponse,
    Remember,
    Rotate,
    Round,
    SecureSum,
    TopK,
    Total,
    Weigh,
    privacy,
)
from shoal.aggregation import Aggregation, Memory
from shoal.algorithms import Local, enter, run_round, start
from shoal.client.contents import contents
from shoal.errors import OrderError, PlanError, SettingError, WireError
from shoal.key import Key
from shoal.privacy import Releases
from shoal.rounds.rules import Rules
from shoal.server.closing import close, first_model, model_of
from shoal.testing import deploy
from shoal.vector import Layout, Part
from shoal.wire.payloads import call_of, check_payload, pack_payload
from shoal.wire.plans import plan_bytes, rebuilt
from tests.conftest import classification

SIZE = 5
LAYOUT = Layout((Part("w", (SIZE,)),))
SITES = classification(sizes=(7, 20, 12))


def sent(chain: Aggregation, value: Any, setting: Any = None, *, examples=1, layout=LAYOUT, states=None, seed=0):
    payload, _ = chain.encode(
        value, examples=examples, notes={}, states=states or chain.start(layout), key=Key.from_seed(seed),
        layout=layout, setting=setting,
    )  # fmt: skip
    return payload


def released(chain: Aggregation, payloads: Any, memory: Memory | None = None, *, seed=0, layout=LAYOUT):
    total = payloads[0]
    for payload in payloads[1:]:
        total = total + payload
    return chain.decode(total, key=Key.from_seed(seed), layout=layout, memory=memory)


def several(random, clients=30, spread=1.0):
    """Contributions whose norms spread over some orders of magnitude."""
    values = random.normal(size=(clients, SIZE))
    return (values * np.exp(spread * random.normal(size=(clients, 1)))).astype(np.float32)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_every_round_is_that_of_algorithm_1(xp, quantile, random):
    step = AdaptiveClip(0.05, quantile=quantile, rate=0.3)
    chain = step >> PlainSum() >> Mean()
    norm, memory, rounds = 0.05, None, 12 if xp is np else 2
    for _ in range(rounds):
        values = several(random, 8)
        lengths = np.linalg.norm(values.astype(np.float64), axis=1)
        wanted = (values * np.minimum(1, norm / lengths)[:, None]).mean(0)
        found = released(chain, [sent(chain, xp.asarray(v), memory and memory.setting) for v in values], memory)
        memory = found.memory
        np.testing.assert_allclose(found.value, wanted, rtol=2e-5, atol=2e-5 * norm)
        np.testing.assert_allclose(found.notes["clipping norm"], [norm, 1], rtol=1e-5)
        norm *= math.exp(-0.3 * (np.mean(lengths <= norm) - quantile))
        assert float(memory.setting) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("quantile", [0.5, 0.8])
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("first", [0.01, 100.0])
def test_the_norm_goes_to_the_quantile_from_both_sides(first, noise, quantile, random):
    clients = 25
    finish = Gaussian(noise, clients=clients) if noise else Mean()
    chain = AdaptiveClip(first, quantile=quantile, rate=0.8) >> PlainSum() >> finish
    values, memory, norms = several(random, clients, 0.5), chain.begin(LAYOUT), list[float]()
    for place in range(45):
        payloads = [sent(chain, value, memory.setting) for value in values]
        memory = released(chain, payloads, memory, seed=place).memory
        norms.append(float(memory.setting))
    lengths = np.linalg.norm(values, axis=1)
    shorter = [np.mean(lengths <= norm) for norm in norms[-20:]]
    assert np.mean(shorter) == pytest.approx(quantile, abs=0.06)


def test_the_noise_is_that_of_theorem_1():
    wide, layout = Layout((Part("w", (40_000,)),)), LAYOUT
    multiplier, clients, norm, share = 1.3, 50, 7.0, 0.2
    step = AdaptiveClip(norm, rate=0.1, share=share)
    chain = step >> PlainSum() >> Gaussian(multiplier, clients=clients)
    nothing = [sent(chain, np.zeros(wide.size, np.float32), layout=wide)]
    z_delta = np.std(released(chain, nothing, layout=wide).value) * clients / norm
    told = sent(chain, np.zeros(SIZE, np.float32))  # one client of half of a fraction: 1/2 - quantile and so on
    settings = [float(released(chain, [told], seed=seed, layout=layout).memory.setting) for seed in range(500)]
    over = -np.log(np.array(settings) / norm) / 0.1
    sigma_b = over.std() * clients
    assert multiplier**-2 == pytest.approx(z_delta**-2 + (2 * sigma_b) ** -2, rel=0.03)
    assert z_delta == pytest.approx(multiplier / math.sqrt(1 - share), rel=0.02)
    assert over.mean() == pytest.approx((1 - 0.5) / clients, abs=4 * over.std() / math.sqrt(500))


BOUNDED = {
    "plain": AdaptiveClip(1.0) >> PlainSum() >> Mean(),
    "much for an extreme quantile": AdaptiveClip(1.0, quantile=0.99, share=0.9) >> PlainSum() >> Mean(),
    "turned": AdaptiveClip(1.0) >> Rotate() >> PlainSum() >> Mean(),
    "weighed": AdaptiveClip(1.0, quantile=0.1) >> Weigh(3) >> PlainSum() >> Mean(),
    "on a grid": AdaptiveClip(1.0) >> Quantize(0.01) >> SecureSum(threshold=2) >> Mean(),
}


@cache
def compiled(name):
    return jax.jit(lambda value, setting: sent(BOUNDED[name], value, setting, examples=9).value)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("name", BOUNDED)
@given(
    value=arrays.arrays(np.float32, SIZE, elements=st.floats(width=32)),
    setting=st.one_of(st.floats(width=32), st.floats(2.0**-66, 2.0**66, width=32)),
)
def test_no_client_and_no_setting_that_a_server_may_send_exceeds_the_bound(name, xp, value, setting):
    chain, setting = BOUNDED[name], np.float32(setting)
    whole = compiled(name)(value, setting) if xp is jnp else sent(chain, value, setting, examples=9).value
    length = np.linalg.norm(np.asarray(whole, np.float64) * (chain.unit or 1))
    assert length <= chain.sensitivity(LAYOUT)


@given(
    value=arrays.arrays(np.float64, SIZE, elements=st.floats(-1e150, 1e150)),
    setting=st.floats(2.0**-60, 2.0**60, width=32),
)
def test_no_client_exceeds_the_bound_in_float64(value, setting):
    layout = Layout((Part("w", (SIZE,), "float64"),), "float64")
    whole = sent(BOUNDED["plain"], value, np.float32(setting), layout=layout).value
    assert whole.dtype == np.float64
    assert np.linalg.norm(whole) <= 1.0


def test_a_client_that_is_replaced_by_a_poisoned_one_moves_the_sum_by_no_more_than_two_sensitivities(random):
    chain, values = BOUNDED["on a grid"], several(random)
    honest = [sent(chain, value).value for value in values]
    for poison in (np.nan, np.inf, 3e38, -1e30, 0.0):
        poisoned = sent(chain, np.full(SIZE, poison, np.float32)).value
        moved = np.linalg.norm((poisoned - honest[0]).astype(np.float64)) * chain.unit
        assert moved <= 2 * chain.sensitivity(LAYOUT)
        assert np.linalg.norm(poisoned.astype(np.float64)) * chain.unit <= chain.sensitivity(LAYOUT)


@dataclass(frozen=True)
class Ask:
    """Clients are vectors, and the server keeps the last result: an algorithm without a model."""

    aggregation: Aggregation
    layout: Layout = LAYOUT
    traceable: bool = False

    def check(self, data):
        pass

    def init(self, key):
        return np.zeros(SIZE, np.float32)

    def broadcast(self, state, round):
        return None

    def enter(self):
        return None

    def local(self, message, data, client_state, key):
        return Local(np.asarray(data, np.float32), metrics={})

    def update(self, state, result, round):
        return result


def one_round(ask, run, values, seed=0):
    clients = {str(place): value for place, value in enumerate(values)}
    return run_round(ask, run, clients, {name: enter(ask) for name in clients}, Key.from_seed(seed))


def test_a_round_that_releases_nothing_leaves_the_norm_and_says_which_was_in_force(random):
    ask = Ask(AdaptiveClip(0.3) >> Quantize(1e-3) >> SecureSum(threshold=4) >> Mean())
    few = one_round(ask, start(ask, Key.from_seed(0)), several(random, 3))
    assert not few.report.released
    assert few.run.memory.setting == np.float32(0.3)
    enough = one_round(ask, few.run, several(random, 4))
    assert enough.run.memory.setting != np.float32(0.3)
    assert [done.report.metrics["clipping norm"][0] for done in (few, enough)] == [np.float32(0.3)] * 2


def test_an_empty_cohort_moves_the_norm_by_noise_alone():
    ask = Ask(AdaptiveClip(2.0, quantile=0.9) >> PlainSum() >> Gaussian(1.0, clients=200))
    first = start(ask, Key.from_seed(0))
    moved = [math.log(one_round(ask, first, [], seed).run.memory.setting / 2) for seed in range(300)]
    deviation = 0.2 * (0.9 / math.sqrt(0.01)) / 200  # rate * sigma_b / clients
    assert np.std(moved) == pytest.approx(deviation, rel=0.15)
    assert np.mean(moved) == pytest.approx(0, abs=4 * deviation / math.sqrt(300))


def test_a_client_that_is_not_finite_counts_for_nobody_and_not_for_the_quantile():
    ask = Ask(AdaptiveClip(1.0) >> PlainSum() >> Mean())
    done = one_round(ask, start(ask, Key.from_seed(0)), [[np.nan] * SIZE, [0.1] * SIZE])
    assert done.report.clients == 1
    assert done.run.memory.setting == pytest.approx(math.exp(-0.2 * 0.5), rel=1e-5)


@pytest.mark.parametrize(("first", "told", "last"), [(3e-20, 1e30, 1e-20), (3e19, -1e30, 1e20)])
def test_a_norm_stays_a_number_to_divide_by(first, told, last):
    step = AdaptiveClip(first, rate=1.0)
    result, setting = np.array([0.0, told], np.float32), step.begin()
    _, once = step.settle(result, setting)
    assert abs(math.log(once / first)) <= 1.1  # a factor of e at most, however wrong the fraction is
    for _ in range(3):
        _, setting = step.settle(result, setting)
    assert setting == np.float32(last)


def test_the_quantile_after_weigh_is_of_examples(random):
    chain, values, examples = AdaptiveClip(1.0) >> Weigh(10) >> PlainSum() >> Mean(), several(random), range(1, 31)
    payloads = [sent(chain, value, examples=n) for value, n in zip(values, examples, strict=True)]
    weights = np.minimum(examples, 10)
    below = weights[np.linalg.norm(values, axis=1) <= 1].sum() / weights.sum()
    assert released(chain, payloads).memory.setting == pytest.approx(math.exp(-0.2 * (below - 0.5)), rel=1e-5)


@pytest.mark.parametrize("before", [TopK(0.4), Remember(Round(1)), Clip(0.8), Rotate(3)], ids=str)
def test_what_is_before_it_is_in_units_of_training(before, random):
    chain = before >> AdaptiveClip(0.5) >> PlainSum() >> Mean()
    plain, values = before >> Clip(0.5) >> PlainSum() >> Mean(), several(random)
    found = released(chain, [sent(chain, value) for value in values])
    wanted = released(plain, [sent(plain, value) for value in values])
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-4, atol=1e-6)
    if before != Clip(0.8):
        memory = Memory(np.float32(0.2))
        found = released(chain, [sent(chain, value, memory.setting) for value in values], memory)
        plain = before >> Clip(0.2) >> PlainSum() >> Mean()
        wanted = released(plain, [sent(plain, value) for value in values])
        np.testing.assert_allclose(found.value, wanted.value, rtol=1e-4, atol=1e-6)


ADAPTS = AdaptiveClip(1.0)
REFUSED = {
    "put TopK before AdaptiveClip": lambda: ADAPTS >> TopK(0.1) >> PlainSum() >> Mean(),
    "put Round before AdaptiveClip": lambda: ADAPTS >> Round(1) >> PlainSum() >> Mean(),
    "put Remember before AdaptiveClip": lambda: ADAPTS >> Remember(TopK(0.1)) >> PlainSum() >> Mean(),
    "put Clip before AdaptiveClip": lambda: ADAPTS >> Clip(1.0) >> PlainSum() >> Mean(),
    "leave AdaptiveClip out": lambda: ADAPTS >> RandomizedResponse(1.0) >> PlainSum() >> Over(clients=9),
    "put Weigh after AdaptiveClip": lambda: Weigh(9) >> ADAPTS >> PlainSum() >> Mean(),
    "adapts once": lambda: ADAPTS >> AdaptiveClip(2.0) >> PlainSum() >> Mean(),
    "learns from a mean, and Total": lambda: ADAPTS >> PlainSum() >> Total(),
    "learns from a mean, and Median": lambda: ADAPTS >> Collect() >> Median(),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_would_lose_the_quantile_is_refused(why):
    with pytest.raises(OrderError, match=why):
        REFUSED[why]()


def test_a_grid_on_which_the_quantile_would_be_lost_is_refused():
    with pytest.raises(SettingError, match=r"too coarse .* use a step of at most 0\.025"):
        ADAPTS >> Quantize(0.1) >> SecureSum(threshold=2) >> Mean()
    assert AdaptiveClip(1.0, share=0.5) >> Quantize(0.1) >> SecureSum(threshold=2) >> Mean()


@pytest.mark.parametrize("settings", [{"norm": 0}, {"norm": 1e30}, {"quantile": 1.0}, {"rate": 0}, {"share": 1e-9}])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(SettingError, match=rf"{next(iter(settings))}"):
        AdaptiveClip(**{"norm": 1.0, **settings})


def plan(aggregation, **given):
    return shoal.Plan(shoal.FedAvg(shoal.models.logistic(13), aggregation=aggregation), rounds=20, **given)


PRIVATE = {
    "normal": lambda clip: clip >> PlainSum() >> Gaussian(1.5, clients=100),
    "on a grid": lambda clip: clip >> Quantize(1e-3) >> SecureSum(threshold=9) >> DiscreteGaussian(1.5, clients=100),
}


@pytest.mark.parametrize("name", PRIVATE)
def test_epsilon_is_that_of_a_fixed_norm(name):
    adaptive, fixed = (plan(PRIVATE[name](clip), cohort=shoal.Poisson(0.01)) for clip in (ADAPTS, Clip(1.0)))
    assert Releases.of(adaptive) == Releases.of(fixed)
    asked = {"delta": 1e-6, "accountant": "RDP"}
    assert privacy.spent(adaptive, **asked).epsilon == privacy.spent(fixed, **asked).epsilon


def test_noise_in_shares_is_for_one_number_more():
    shared = ADAPTS >> Quantize(1e-3) >> NoiseShare(2.0, at_least=4) >> SecureSum(threshold=4) >> Over(clients=4)
    assert Releases.of(plan(shared)).shared.size == 15
    fixed = Clip(1.0) >> Quantize(1e-3) >> NoiseShare(2.0, at_least=4) >> SecureSum(threshold=4) >> Over(clients=4)
    assert Releases.of(plan(fixed)).shared.size == 14


def test_a_plan_says_the_units_and_travels():
    adaptive = plan(PRIVATE["normal"](Clip(9.0) >> ADAPTS))
    text = str(adaptive)
    assert "one client  moves the sum by at most 1 times the clipping norm of the round\n" in text
    assert "norm at most 9\n" in text
    assert "leaves      at most 60 bytes of the value, and nothing else" in text
    assert contents(adaptive).startswith("15 numbers (float32) for Clip")
    assert rebuilt(plan_bytes(adaptive)) == adaptive


def test_the_bytes_of_a_sparse_value_are_those_of_its_numbers_and_one_more():
    layout = Layout((Part("w", (1000,)),))
    assert (TopK(0.1) >> PlainSum() >> Mean()).upload_bytes(layout) == 800
    assert (TopK(0.1) >> ADAPTS >> PlainSum() >> Mean()).upload_bytes(layout) == 808


def test_a_server_lets_pass_what_is_as_long_as_the_norm_in_units_of_it():
    ask = Ask(AdaptiveClip(100.0) >> PlainSum() >> Mean())
    honest = sent(ask.aggregation, np.full(SIZE, 1e6, np.float32))
    check_payload(pack_payload(honest), ask)
    with pytest.raises(WireError, match="longer than the 1 "):
        check_payload(pack_payload(replace(honest, value=honest.value * np.float32(1.01))), ask)


DEPLOYED = {
    "a plain sum": AdaptiveClip(0.05) >> PlainSum() >> Mean(),
    "a secure sum": AdaptiveClip(0.05, quantile=0.6) >> Rotate() >> Quantize(1e-3) >> SecureSum(threshold=3) >> Mean(),
}


@pytest.mark.parametrize("name", DEPLOYED)
def test_a_deployed_run_is_the_simulated_one_to_the_bit(name):
    model = shoal.models.SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))
    study = shoal.Plan(shoal.FedAvg(model, aggregation=DEPLOYED[name]), rounds=4)
    simulated, found = shoal.simulate(study, SITES, seed=5, progress="off"), deploy(study, SITES, seed=5)
    assert found.vector.tobytes() == simulated.vector.tobytes()
    norms = simulated.history.column("clipping norm")
    assert len(set(norms)) > 2
    assert [closed.metrics["clipping norm"] for closed in found.run.history] == norms


def test_contributions_in_units_of_different_rounds_are_not_added_up():
    model = shoal.models.SklearnModel(SGDClassifier(loss="log_loss"), features=4, classes=(0, 1))
    study = shoal.Plan(shoal.FedAvg(model, aggregation=DEPLOYED["a plain sum"]), rounds=2)
    with pytest.raises(PlanError, match="in units of their round's clipping norm"):
        deploy(study, SITES, rules=Rules(buffer=2, at_least=2))


def test_a_server_that_begins_again_and_its_clients_have_the_norm_of_the_round():
    ask = Ask(AdaptiveClip(0.3) >> PlainSum() >> Mean())
    first = first_model(ask, seed=0)
    after = close(ask, first, sent(ask.aggregation, np.ones(SIZE, np.float32)), seed=0, round=0).model
    again = model_of(ask, 0, after.state())
    assert again.call() == after.call() != first.call()
    assert call_of(ask, again.call()).setting == after.run.memory.setting
    assert after.run.memory.setting == pytest.approx(0.3 * math.exp(0.2 * 0.5), rel=1e-6)
