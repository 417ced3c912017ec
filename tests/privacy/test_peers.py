"""The places where other systems get privacy wrong, each as a test that holds here.

They were found by reading and running those systems: noise for another sensitivity than the clients have, adaptive
clipping that runs away, a clip that NaN passes, local noise by a formula outside its range, contributions nobody
checks, noise and masks that somebody can foretell, and the neighbouring relation of a fixed cohort.
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal import AdaptiveClip, Clip, Gaussian, LocalGaussian, Mean, PlainSum, Poisson, Quantize, Weigh
from shoal.algorithms import open_round, silence
from shoal.errors import WireError
from shoal.key import Key
from shoal.privacy import Releases, spent
from shoal.server.closing import close, first_model
from shoal.vector import Layout, Part
from shoal.wire.payloads import check_payload, pack_payload
from tests.privacy.sending import Sending
from tests.secure.session import clients, play

SIZE = 4
SIZES = (1000, *(1,) * 9)
LAYOUT = Layout((Part("w", (SIZE,)),))


def ran(chain, data, *, rounds=1, size=SIZE):
    """The history and the last release of clients that send what they hold."""
    plan = shoal.Plan(Sending(chain, size), rounds=rounds)
    result = shoal.simulate(plan, data, runtime="local")
    return result.history, np.asarray(result.vector, np.float64)


def encoded(step, value, examples=1):
    chain = step >> PlainSum() >> Mean()
    payload, _ = chain.encode(
        value, examples=examples, notes={}, states=chain.start(LAYOUT), key=Key.from_seed(0), layout=LAYOUT
    )
    return np.asarray(payload.value)


@pytest.mark.parametrize("weigh", [False, True])
def test_a_client_with_nearly_all_examples_moves_the_mean_by_no_more_than_the_noise_is_made_for(weigh):
    """Flower's wrapper makes noise for a plain mean, and its mean is weighed by examples: 0.99 in place of 0.1."""
    steps = Clip(1.0) >> Weigh(500) if weigh else Clip(1.0)
    chain = steps >> PlainSum() >> Gaussian(0.1, clients=10)
    rows = {f"c{place}": (np.full((size, 3), 9.0, np.float32), np.arange(size) % 2) for place, size in enumerate(SIZES)}
    plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), aggregation=chain), rounds=1)
    everyone, but_one = (
        shoal.simulate(plan, shoal.Population.from_clients(some), seed=5, runtime="local").vector.astype(np.float64)
        for some in (rows, {name: row for name, row in rows.items() if name != "c0"})
    )
    assert 0 < np.linalg.norm(everyone - but_one) <= chain.sensitivity(plan.algorithm.layout) / 10 * (1 + 1e-5)


@pytest.mark.parametrize("first", [1.0, 100.0])
def test_an_adaptive_norm_goes_to_the_quantile_and_not_away_from_it(first):
    """Flower counts the clipped and updates as for those that were not: from 0.1 to 0, from 100 to two million."""
    lengths = np.linspace(5, 15, 21)  # the median is 10
    some = {f"c{place}": np.full(SIZE, length / 2) for place, length in enumerate(lengths)}
    chain = AdaptiveClip(first, rate=0.4) >> PlainSum() >> Gaussian(0.1, clients=21)
    norms = ran(chain, some, rounds=40)[0].column("clipping norm")
    assert norms[0] == pytest.approx(first)
    assert np.mean(norms[-10:]) == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38, 0.0, 1e-40])
def test_a_clip_lets_nothing_through_that_is_longer_or_no_number(xp, poison):
    """Flower's clip: NaN unscaled, infinity made NaN, and an update of zeros ends the round with a division."""
    found = encoded(Clip(1.0), xp.asarray(np.array([poison, 1.0, 100.0, 0.0], np.float32)))
    assert np.isfinite(found).all()
    assert np.linalg.norm(found.astype(np.float64)) <= 1
    assert not encoded(Clip(1.0), xp.asarray(np.full(SIZE, poison * 0, np.float32))).any()


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
@pytest.mark.parametrize("norm", [0.5, 4.0])
def test_local_noise_has_the_delta_it_says_for_every_epsilon_and_is_tied_to_the_clip(epsilon, norm):
    """Flower's: sqrt(2 ln(1.25 / delta)) / epsilon, proved for epsilon < 1, times a number that no clip knows."""
    delta, phi = 1e-6, NormalDist().cdf
    step = LocalGaussian(epsilon, delta)
    over = step.deviation(norm, LAYOUT) / (2 * norm)  # a client that is replaced moves by twice the clip
    exact = phi(1 / (2 * over) - epsilon * over) - math.exp(epsilon) * phi(-1 / (2 * over) - epsilon * over)
    assert exact == pytest.approx(delta, rel=1e-3)


def test_one_client_that_is_not_finite_is_left_out_and_counted():
    """Flower's mean: one NaN makes the global model NaN."""
    history, model = ran(
        PlainSum() >> Mean(), {"a": np.full(SIZE, 2.0), "b": np.full(SIZE, np.nan), "c": np.full(SIZE, 4.0)}
    )
    assert np.array_equal(model, np.full(SIZE, 3.0))
    assert (history.column("clients"), history.column("rejected")) == ([2], [1])


@pytest.mark.parametrize("examples", [-9, 1e9, np.inf])
def test_no_number_of_examples_makes_a_contribution_longer(examples):
    """Flower's mean takes a weight of -9, or of a billion."""
    value = np.full(SIZE, 0.5, np.float32)
    found = encoded(Clip(1.0) >> Weigh(500), value, examples=np.float32(examples))
    assert np.array_equal(found, np.zeros(SIZE) if examples < 0 else encoded(Clip(1.0), value))


@pytest.mark.parametrize(
    ("change", "why"),
    [({"value": np.zeros(1, np.float32)}, "asked for"), ({"value": np.zeros(SIZE)}, "asked for"),
     ({"weight": np.float32(-9)}, "weight"), ({"weight": np.float32(1e9)}, "weight")],
)  # fmt: skip
def test_a_server_takes_no_other_shape_dtype_or_weight_than_the_plan_declares(change, why):
    """Flower broadcasts a shape of (1,) into (3,), and compares no dtype with what was declared."""
    work = Sending(Weigh(500) >> PlainSum() >> Mean(), SIZE)
    payload, _ = work.aggregation.encode(
        np.ones(SIZE, np.float32), examples=np.float32(1), notes={"size": np.ones(2, np.float32)},
        states=work.aggregation.start(LAYOUT), key=Key.from_seed(0), layout=LAYOUT,
    )  # fmt: skip
    check_payload(pack_payload(payload), work)
    with pytest.raises(WireError, match=why):
        check_payload(pack_payload(replace(payload, **change)), work)


def test_the_same_seed_foretells_the_noise_of_a_simulation_and_not_that_of_a_server():
    """pfl and Flower draw it from NumPy's generator, which a seed, or 624 outputs, foretell."""
    work = Sending(Clip(1.0) >> PlainSum() >> Gaussian(1.0, clients=1), 500)
    once, again = (ran(work.aggregation, {"a": np.zeros(500)}, size=500)[1] for _ in range(2))
    assert np.array_equal(once, again)
    model = first_model(work, 0)
    total = silence(work, open_round(work, model.run))
    first, second = (close(work, model, total, seed=0, round=0).model.run.state.vector for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.25


def test_what_a_server_gets_of_a_secure_sum_is_masked_and_the_sum_is_right():
    """FLSim's masks are empty functions; TFF's secure sum is a plain one in the open runtime."""
    group, bodies = clients(3, size=2000), dict[str, bytes]()

    def line(what, client, message, body):
        if body:
            bodies[client] = body
        return message, body

    played = play(group, line=line)
    for name in group.names:
        sent = np.frombuffer(bodies[name][: 4 * 2000], "<u4")
        assert np.count_nonzero(sent == group.value(name)) < 3
        assert abs(np.mean(sent >> 31) - 0.5) < 0.06
    assert played.result == group.plain(group.names)


def test_a_cohort_of_fixed_size_is_no_poisson_sample_and_the_factor_of_two_is_in_it():
    """dp-accounting takes the multiplier over 2 C for a replacement and does not say so: half the noise is claimed."""
    asked = {"delta": 1e-6, "clients": 10_000}
    fixed = spent(Releases(2.0, 1000, 100), **asked)
    pretended = spent(Releases(2.0, 1000, Poisson(0.01)), accountant="RDP", **asked)
    assert fixed.epsilon == pytest.approx(4.02, abs=0.005)  # sigma 1 over 2 C
    assert pretended.epsilon < fixed.epsilon / 3
    assert "replaced" in fixed.relation


def test_an_empty_round_of_a_private_plan_is_noise_and_no_error():
    chain = Clip(1.0) >> Quantize(1e-3) >> PlainSum() >> shoal.DiscreteGaussian(1.0, clients=4)
    plan = shoal.Plan(Sending(chain, SIZE), rounds=1, cohort=Poisson(1e-9))
    result = shoal.simulate(plan, {"a": np.ones(SIZE)}, runtime="local")
    assert (result.history.column("clients"), result.history.column("released")) == ([0], [])
    assert result.vector.any()
