"""The small GPT beside plain NumPy."""

import numpy as np
import pytest

import shoal
from shoal.errors import DataError, SettingError

SMALL = {"length": 7, "width": 6, "heads": 2, "layers": 2}


def normed(x, p, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * p[f"{name}.weight"] + p[f"{name}.bias"]


def dense(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attended(x, p, heads):
    """Each place of one text looks at itself and at those before it, one place after another."""
    size = x.shape[1] // heads
    query, key, value = np.split(dense(x, p, "attention"), 3, axis=1)
    seen = np.zeros_like(x)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        for place in range(len(x)):
            scores = key[: place + 1, own] @ query[place, own] / np.sqrt(size)
            chances = np.exp(scores) / np.exp(scores).sum()
            seen[place, own] = chances @ value[: place + 1, own]
    return dense(seen, p, "mix")


def plain(p, text, heads, layers):
    flow = p["symbols.weight"][text] + p["places.weight"][: len(text)]
    for block in range(layers):
        prefix = f"blocks.{block}."
        own = {name.removeprefix(prefix): array for name, array in p.items() if name.startswith(prefix)}
        flow = flow + attended(normed(flow, own, "norm_1"), own, heads)
        z = dense(normed(flow, own, "norm_2"), own, "expand")
        inner = 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        flow = flow + dense(inner, own, "contract")
    return normed(flow, p, "norm") @ p["symbols.weight"].T


@pytest.mark.parametrize("length", [1, 4, 7])
def test_it_is_numpys_from_the_same_weights(length, random):
    model = shoal.models.gpt(9, **SMALL)
    vector = random.normal(size=model.layout.size).astype(np.float32) / 2
    x = random.integers(0, 9, (3, length))
    p = {name: np.asarray(array, np.float64) for name, array in model.layout.unflatten(vector).items()}
    wanted = np.stack([plain(p, text, 2, 2) for text in x])
    np.testing.assert_allclose(model.outputs(vector, x), wanted, rtol=1e-3, atol=1e-3)


def test_no_position_sees_what_comes_after_it(random):
    model = shoal.models.gpt(9, **SMALL)
    vector, x = model.init(shoal.Key.from_seed(0)), random.integers(0, 9, (1, 7))
    other = x.copy()
    other[0, 4:] = (other[0, 4:] + 1) % 9
    before, after = model.outputs(vector, x), model.outputs(vector, other)
    np.testing.assert_allclose(before[:, :4], after[:, :4], rtol=1e-5, atol=1e-6)
    assert not np.allclose(before[:, 4:], after[:, 4:])


def test_it_starts_as_gpt_2_does():
    model = shoal.models.gpt(400, length=300, width=64, layers=2)
    p = {k: np.asarray(a) for k, a in model.layout.unflatten(model.init(shoal.Key.from_seed(0))).items()}
    for name, deviation in (
        ("symbols.weight", 0.02),
        ("places.weight", 0.02),
        ("blocks.1.attention.weight", 0.02),
        ("blocks.1.mix.weight", 0.02 / 2),
        ("blocks.1.contract.weight", 0.02 / 2),
    ):
        assert p[name].std() == pytest.approx(deviation, rel=0.05)
    assert (p["blocks.1.norm_1.weight"] == 1).all()
    assert not any(array.any() for name, array in p.items() if name.endswith("bias"))


def test_it_learns_a_text_that_repeats_with_dropout_and_padding():
    text = np.tile(np.arange(1, 6), 30)
    rows = np.stack([text[i : i + 7] for i in range(40)])
    rows[::2, 5:] = 0
    population = shoal.Population.from_arrays(rows[:, :-1], rows[:, 1:], groups=np.arange(40) % 4)
    model = shoal.models.gpt(6, length=6, width=16, heads=2, layers=1, dropout=0.1, padding=0)
    plan = shoal.Plan(shoal.FedAvg(model, client_optimizer=shoal.adam(0.03), batch_size=5, epochs=3), rounds=8)
    result = shoal.simulate(plan, population)
    assert result.evaluate(population).pooled["accuracy"] > 0.95


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 4}, "6 is not divisible by 4"),
        ({"length": 0}, "at least one symbol"),
        ({"heads": 0}, "at least one head"),
        ({"layers": 0}, "at least one layer"),
        ({"width": 0}, "at least one number"),
        ({"dropout": 1}, "from 0 to below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        shoal.models.gpt(9, **{**SMALL, **settings})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((4, 8), int), "at most 7 symbols, and rows have 8"),
        (np.full((4, 3), 9), "4 of 4 rows hold others"),
        (np.zeros((4, 0), int), r"not rows of shape \(0,\)"),
    ],
)
def test_texts_that_do_not_fit_are_refused_before_anything_runs(x, message):
    with pytest.raises(DataError, match=message):
        shoal.simulate(shoal.Plan(shoal.FedAvg(shoal.models.gpt(9, **SMALL)), rounds=1), {"a": (x, x)})
