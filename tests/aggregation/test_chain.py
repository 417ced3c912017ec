"""What an aggregation computes, beside NumPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.aggregation import Aggregation, Bag
from shoal.errors import OrderError, SettingError
from shoal.key import Key
from shoal.vector import Layout, Part

LAYOUT = Layout((Part("w", (6,)),))


def total(aggregation, values, examples, notes=None):
    """The payloads of clients, added up."""
    result = None
    for place, (value, count) in enumerate(zip(values, examples, strict=True)):
        payload, _ = aggregation.encode(
            value,
            examples=count,
            notes=notes or {},
            states=aggregation.start(LAYOUT),
            key=Key.from_seed(place),
            layout=LAYOUT,
        )
        result = payload if result is None else result + payload
    return result


def released(aggregation, values, examples, seed=0):
    return aggregation.decode(total(aggregation, values, examples), key=Key.from_seed(seed), layout=LAYOUT)


@pytest.fixture(params=[np.asarray, jnp.asarray], ids=["numpy", "jax"])
def values(request, random):
    return [request.param(v) for v in random.normal(size=(5, 6)).astype(np.float32)]


EXAMPLES = [3, 50, 7, 1, 200]


def test_mean_is_numpy_mean(values):
    found = released(shoal.mean(), values, EXAMPLES)
    np.testing.assert_allclose(found.value, np.mean(values, axis=0), rtol=1e-6, atol=1e-7)


def test_weighted_mean_is_numpy_average(values):
    found = released(shoal.weighted_mean(), values, EXAMPLES)
    np.testing.assert_allclose(found.value, np.average(values, axis=0, weights=EXAMPLES), rtol=1e-6, atol=1e-7)


def test_a_cap_counts_larger_clients_as_the_cap(values):
    found = released(shoal.weighted_mean(cap=50), values, EXAMPLES)
    wanted = np.average(values, axis=0, weights=np.minimum(EXAMPLES, 50))
    np.testing.assert_allclose(found.value, wanted, rtol=1e-5, atol=1e-6)


def test_total_is_numpy_sum(values):
    np.testing.assert_allclose(released(shoal.total(), values, EXAMPLES).value, np.sum(values, axis=0), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_median_is_numpy_median(values, count):
    found = released(shoal.Collect() >> shoal.Median(), values[:count], EXAMPLES[:count])
    np.testing.assert_allclose(found.value, np.median(values[:count], axis=0), rtol=1e-6)


@pytest.mark.parametrize("there", [[0, 1, 1, 0, 1], [1, 1, 0, 1, 1], [0, 0, 0, 1, 0]])
def test_median_looks_past_clients_that_contributed_nothing(values, there):
    aggregation = shoal.Collect() >> shoal.Median()
    bag = total(aggregation, values, EXAMPLES)
    bag = Bag(bag.value * np.float32(there)[:, None], bag.weight, {}, np.int32(there))
    found = aggregation.decode(bag, key=Key.from_seed(0), layout=LAYOUT)
    wanted = np.median([v for v, t in zip(values, there, strict=True) if t], axis=0)
    np.testing.assert_allclose(found.value, wanted, rtol=1e-6)


def test_clip_scales_by_the_formula(values):
    found = released(shoal.Clip(1.5) >> shoal.PlainSum() >> shoal.Mean(), values, EXAMPLES)
    clipped = [v * min(1, 1.5 / np.linalg.norm(v)) for v in values]
    np.testing.assert_allclose(found.value, np.mean(clipped, axis=0), rtol=1e-5, atol=1e-6)


def test_a_grid_mean_is_within_half_a_step(values):
    chain = shoal.Clip(9.0) >> shoal.Quantize(0.01) >> shoal.PlainSum() >> shoal.Mean()
    payload = total(chain, values, EXAMPLES)
    assert payload.value.dtype == payload.weight.dtype == np.int32
    found = released(chain, values, EXAMPLES)
    assert np.abs(found.value - np.mean(values, axis=0)).max() <= 0.005 + 1e-4


def test_stochastic_rounding_is_right_on_average():
    chain = shoal.Clip(9.0) >> shoal.Quantize(1.0, "stochastic") >> shoal.PlainSum() >> shoal.Mean()
    value = np.full(6, 0.3, np.float32)
    found = released(chain, [value] * 4000, [1] * 4000)
    np.testing.assert_allclose(found.value, 0.3, atol=0.04)


def test_top_k_keeps_the_largest(values):
    found, _ = (shoal.TopK(0.5) >> shoal.PlainSum() >> shoal.Mean()).encode(
        values[0], examples=1, notes={}, states=(None,), key=Key.from_seed(0), layout=LAYOUT
    )
    kept = np.argsort(-np.abs(values[0]))[:3]
    wanted = np.zeros(6, np.float32)
    wanted[kept] = np.asarray(values[0])[kept]
    np.testing.assert_array_equal(found.value, wanted)


def test_error_feedback_sends_everything_in_the_end(values):
    chain = shoal.Remember(shoal.TopK(0.2)) >> shoal.PlainSum() >> shoal.Total()
    states, sent = chain.start(LAYOUT), np.zeros(6)
    for _ in range(30):
        payload, states = chain.encode(values[0], examples=1, notes={}, states=states, key=Key(0, 0), layout=LAYOUT)
        sent += np.asarray(payload.value)
    np.testing.assert_allclose(sent + np.asarray(states[0]), 30 * np.asarray(values[0]), rtol=1e-4, atol=1e-4)


def test_a_secure_sum_below_its_threshold_releases_nothing(values):
    chain = shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(threshold=4) >> shoal.Mean()
    assert not released(chain, values[:3], EXAMPLES[:3]).released
    assert released(chain, values[:4], EXAMPLES[:4]).released


def test_under_noise_neither_weight_nor_metric_leaves_a_client(values):
    notes = {"loss": np.ones(2, np.float32)}
    private = shoal.Clip(1.0) >> shoal.Weigh(50) >> shoal.PlainSum() >> shoal.Gaussian(1.0, clients=5)
    payload = total(private, values, EXAMPLES, notes)
    assert payload.weight == 0
    assert payload.notes == {}
    assert total(shoal.mean(), values, EXAMPLES, notes).notes["loss"].tolist() == [5, 5]


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
def test_gaussian_noise_has_the_deviation_that_the_sensitivity_asks_for(xp):
    layout = Layout((Part("w", (200_000,)),))
    chain = shoal.Clip(0.5) >> shoal.PlainSum() >> shoal.Gaussian(3.0, clients=10)
    payload, _ = chain.encode(
        xp.zeros(layout.size, "float32"), examples=1, notes={}, states=(None,), key=Key.from_seed(0), layout=layout
    )
    noise = np.asarray(chain.decode(payload, key=Key.from_seed(1), layout=layout).value)
    assert noise.std() == pytest.approx(3.0 * 0.5 / 10, rel=0.01)
    assert abs(noise.mean()) < 4 * 0.15 / np.sqrt(layout.size)


def test_sensitivity_counts_the_rounding():
    chain = shoal.Clip(1.0) >> shoal.Quantize(0.1) >> shoal.PlainSum() >> shoal.Gaussian(1.0, clients=1)
    assert chain.sensitivity(LAYOUT) == pytest.approx(1.0 + 0.05 * np.sqrt(6), rel=1e-5)
    assert shoal.mean().sensitivity(LAYOUT) == float("inf")


def test_a_grid_sum_that_could_overflow_is_refused_before_anything_runs():
    chain = shoal.Clip(1.0) >> shoal.Quantize(1e-9) >> shoal.PlainSum() >> shoal.Mean()
    chain.check(LAYOUT, 1)
    with pytest.raises(SettingError, match="needs more than 32 bits: use a step of at least"):
        chain.check(LAYOUT, 100)


def test_bytes_on_the_wire_are_counted():
    assert shoal.mean().upload_bytes(LAYOUT) == 24
    assert (shoal.TopK(0.2) >> shoal.PlainSum() >> shoal.Mean()).upload_bytes(LAYOUT) == 8
    assert (shoal.Remember(shoal.TopK(0.2)) >> shoal.PlainSum() >> shoal.Mean()).upload_bytes(LAYOUT) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: shoal.Clip(0.0),
        lambda: shoal.Clip(float("nan")),
        lambda: shoal.Weigh(0),
        lambda: shoal.Quantize(-1.0),
        lambda: shoal.Quantize(1.0, "up"),
        lambda: shoal.TopK(0.0),
        lambda: shoal.TopK(1.5),
        lambda: shoal.Round(9),
        lambda: shoal.SecureSum(1),
        lambda: shoal.Gaussian(0.0, clients=3),
        lambda: shoal.Gaussian(1.0, clients=0),
        lambda: shoal.NoiseShare(1.0, at_least=0),
        lambda: shoal.NoiseShare(-1.0, at_least=3),
        lambda: shoal.Over(0),
        lambda: shoal.Clip("1"),
        lambda: shoal.SecureSum(2.5),
        lambda: shoal.Gaussian(1.0, clients=2.5),
    ],
)
def test_settings_outside_their_range_are_refused(make):
    with pytest.raises(SettingError):
        make()


def test_numbers_of_numpy_are_numbers_and_equal_plans_are_equal():
    assert shoal.Clip(np.float32(1.0)) == shoal.Clip(1)
    assert str(shoal.Clip(1)) == "Clip(norm=1.0)"
    assert shoal.SecureSum(np.int64(3)).threshold == 3


@pytest.mark.parametrize(
    ("build", "fix"),
    [
        (lambda: shoal.Weigh(10) >> shoal.Collect() >> shoal.Median(), "leave Weigh out"),
        (lambda: shoal.Weigh(10) >> shoal.PlainSum() >> shoal.Total(), "leave Weigh out"),
        (lambda: Aggregation((), shoal.Collect(), shoal.Mean()), "write PlainSum() >> Mean(...)"),
        (lambda: Aggregation((), shoal.PlainSum(), shoal.Median()), "write Collect() >> Median(...)"),
    ],
)
def test_weights_that_nothing_divides_by_and_ends_that_do_not_fit_are_refused(build, fix):
    with pytest.raises(OrderError) as refused:
        build()
    assert fix in str(refused.value)
