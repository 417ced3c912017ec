"""LSTM language models beside plain NumPy, and beside the derivative that JAX makes of plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.errors import DataError, SettingError
from shoal.models.jax import at_once
from shoal.models.recurrence import lstm

WEIGHTS = {"weight_ih": (12, 4), "weight_hh": (12, 3), "bias_ih": (12,), "bias_hh": (12,)}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def plain(x, weight_ih, weight_hh, bias_ih, bias_hh, n=np, squash=sigmoid):
    """One layer, one step after another: outputs of (steps, rows, units)."""
    units = weight_hh.shape[1]
    output = cell = n.zeros((x.shape[1], units))
    outputs = []
    for now in x:
        gates = now @ weight_ih.T + bias_ih + output @ weight_hh.T + bias_hh
        i, f, g, o = (gates[:, k * units : (k + 1) * units] for k in range(4))
        cell = squash(f) * cell + squash(i) * n.tanh(g)
        output = squash(o) * n.tanh(cell)
        outputs.append(output)
    return n.stack(outputs)


def named(model, vector):
    return {name: np.asarray(array, np.float64) for name, array in model.layout.unflatten(np.asarray(vector)).items()}


def layers(p, states, count):
    for layer in range(count):
        states = plain(states, *(p[f"lstm.{name}_l{layer}"] for name in WEIGHTS))
    return states.swapaxes(0, 1)


def test_the_gradient_of_the_recurrence_is_that_of_plain_loops(random):
    x, outer = random.normal(size=(5, 2, 4)), random.normal(size=(5, 2, 3))
    weights = [random.normal(size=shape) for shape in WEIGHTS.values()]

    def loss(recurrence, x, weights):
        return jnp.sum(recurrence(x, *weights) * outer)

    def loops(x, *weights):
        return plain(x, *weights, n=jnp, squash=jax.nn.sigmoid)

    ours, theirs = (
        jax.value_and_grad(lambda x, w, f=f: loss(f, x, w), (0, 1))(
            jnp.asarray(x, jnp.float32), [jnp.asarray(w, jnp.float32) for w in weights]
        )
        for f in (lstm, loops)
    )
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", ["every", "last"])
def test_the_character_lstm_is_numpys_from_the_same_weights(positions, random):
    model = shoal.models.char_lstm(11, embedding=4, hidden=6, layers=2, positions=positions)
    vector, x = model.init(shoal.Key.from_seed(0)), random.integers(0, 11, (3, 7))
    p = named(model, vector)
    states = layers(p, p["embedding.weight"][x.T], 2)
    wanted = states @ p["output.weight"].T + p["output.bias"]
    np.testing.assert_allclose(
        model.outputs(vector, x), wanted if positions == "every" else wanted[:, -1], rtol=1e-4, atol=1e-5
    )


def test_the_word_lstm_scores_by_its_own_embedding(random):
    model = shoal.models.word_lstm(11, embedding=4, hidden=6)
    vector, x = model.init(shoal.Key.from_seed(0)), random.integers(0, 11, (3, 7))
    p = named(model, vector)
    states = layers(p, p["embedding.weight"][x.T], 1) @ p["projection.weight"].T + p["projection.bias"]
    np.testing.assert_allclose(
        model.outputs(vector, x), states @ p["embedding.weight"].T + p["output.bias"], rtol=1e-4, atol=1e-5
    )
    assert shoal.models.word_lstm(11, embedding=4, hidden=6, tied=False).layout.size == (
        11 * 4 + 4 * 6 * (4 + 6 + 2) + 11 * (6 + 1)
    )


def test_the_number_of_parameters_is_the_papers_but_for_its_kind_of_cell():
    symbols, units = 258, 256
    peepholes, second_biases = 2 * 3 * units, 2 * 4 * units
    assert shoal.models.char_lstm(symbols).layout.size == 866_578 - peepholes + second_biases


def test_padding_changes_neither_loss_nor_update(random):
    model = shoal.models.char_lstm(9, embedding=3, hidden=4, layers=1, padding=0)
    text = random.integers(1, 9, (6, 5))
    short = {"x": text[:, :-1], "y": text[:, 1:]}
    long = {name: np.pad(column, ((0, 0), (0, 3))) for name, column in short.items()}
    plan = shoal.Plan(shoal.FedAvg(model, batch_size=4, order="given", client_optimizer=shoal.sgd(1.0)), rounds=2)
    vectors = [
        shoal.simulate(plan, shoal.Population.from_clients({"a": data}), runtime="local").vector
        for data in (short, long)
    ]
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-6)
    measured = [model.measure(vectors[0], data) for data in (short, long)]
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(*(m[name] for m in measured), rtol=1e-4)


def test_a_character_lstm_learns_a_text_that_repeats():
    text = np.tile(np.arange(5), 30)
    rows = np.stack([text[i : i + 9] for i in range(40)])
    population = shoal.Population.from_arrays(rows[:, :-1], rows[:, 1:], groups=np.arange(40) % 4)
    model = shoal.models.char_lstm(5, embedding=4, hidden=8, layers=2)
    plan = shoal.Plan(shoal.FedAvg(model, client_optimizer=shoal.adam(0.05), batch_size=5, epochs=3), rounds=6)
    result = shoal.simulate(plan, population)
    assert result.evaluate(population).pooled["accuracy"] > 0.95


def test_long_outputs_are_measured_in_fewer_rows_at_a_time(random):
    model = shoal.models.char_lstm(9000, embedding=1, hidden=2, layers=1)
    vector, x = model.init(shoal.Key.from_seed(0)), random.integers(0, 9000, (600, 2))
    assert at_once(model, (2,), x.dtype) == 512
    p = named(model, vector)
    wanted = layers(p, p["embedding.weight"][x.T], 1) @ p["output.weight"].T + p["output.bias"]
    np.testing.assert_allclose(model.outputs(vector, x), wanted, rtol=1e-4, atol=1e-5)
    chances = np.exp(wanted) / np.exp(wanted).sum(-1, keepdims=True)
    loss = -np.log(np.take_along_axis(chances, x[..., None], -1)[..., 0]).mean(1)
    np.testing.assert_allclose(model.measure(vector, {"x": x, "y": x})["loss"], loss, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: shoal.models.char_lstm(1), "at least 2 symbols"),
        (lambda: shoal.models.char_lstm(9, hidden=0), "at least one unit"),
        (lambda: shoal.models.char_lstm(9, layers=0), "at least one layer"),
        (lambda: shoal.models.word_lstm(9, embedding=1.5), "at least one number"),
        (lambda: shoal.models.char_lstm(9, positions="first"), "'every' position or after the 'last', not 'first'"),
        (lambda: shoal.models.word_lstm(9, padding=-2), "padding is a symbol, or -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


TEXT = np.zeros((4, 5), int)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (TEXT + 9, TEXT, r"from 0 to 8 for a vocabulary of 9; 4 of 4 rows hold others, the first is row 0"),
        (TEXT - 1, TEXT, "4 of 4 rows hold others"),
        (TEXT * 1.0, TEXT, r"\(rows, length\) whole numbers, not rows of shape \(5,\) and dtype float64"),
        (TEXT[:, 0], TEXT, r"not rows of shape \(\)"),
        (TEXT, TEXT + 9, "labels are whole numbers from 0 to 8"),
        (TEXT, TEXT - 2, "labels are whole numbers from 0 to 8"),
        (TEXT, TEXT[:, :3], r"labels have shape \(3,\), and shape \(5,\)"),
    ],
)
def test_texts_that_do_not_fit_are_refused_before_anything_runs(x, y, message):
    for padding in (None, -1):
        model = shoal.models.char_lstm(9, embedding=3, hidden=4, padding=padding)
        with pytest.raises(DataError, match=message):
            shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), {"a": (x, y)})


def test_parameters_have_torchs_names_and_order():
    layout = shoal.models.char_lstm(9, embedding=3, hidden=4, layers=1).layout
    lstm_names = [f"lstm.{name}_l0" for name in WEIGHTS]
    assert [part.name for part in layout.parts] == ["embedding.weight", *lstm_names, "output.weight", "output.bias"]
