"""The zoo's language models: torch and JAX give the same numbers from the same vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import shoal
from shoal.errors import DataError
from shoal.models import char_lstm, gpt, word_lstm

torch = pytest.importorskip(
    "torch", reason="needs torch, which the test command leaves out: run  make torch  and test again"
)
from shoal.models import torch_char_lstm, torch_gpt, torch_word_lstm  # noqa: E402

LSTM, GPT = {"embedding": 4, "hidden": 6}, {"length": 7, "width": 8, "heads": 2, "layers": 2}
PAIRS = {
    "characters": (char_lstm(9, **LSTM), torch_char_lstm(9, **LSTM)),
    "the last": (char_lstm(9, **LSTM, positions="last"), torch_char_lstm(9, **LSTM, positions="last")),
    "words": (word_lstm(9, **LSTM), torch_word_lstm(9, **LSTM)),
    "untied words": (word_lstm(9, **LSTM, tied=False), torch_word_lstm(9, **LSTM, tied=False)),
    "gpt": (gpt(9, **GPT), torch_gpt(9, **GPT)),
    "padded gpt": (gpt(9, **GPT, padding=0), torch_gpt(9, **GPT, padding=0)),
}


def texts(name, random, rows):
    x = random.integers(0, 9, (rows, 7))
    y = random.integers(0, 9, rows if name == "the last" else (rows, 7))
    if y.ndim == 2:
        y[:2, 4:] = y[2] = 0  # padding, where a model has it; one row is nothing else
    return x, y


@pytest.mark.parametrize("name", PAIRS)
def test_one_vector_gives_both_the_same_outputs_and_measures(name, random):
    ours, theirs = PAIRS[name]
    assert ours.layout == theirs.layout
    vector = random.normal(size=ours.layout.size).astype(np.float32) / 3
    x, y = texts(name, random, rows=5)
    np.testing.assert_allclose(ours.outputs(vector, x), theirs.outputs(vector, x), rtol=1e-4, atol=1e-4)
    measured = [model.measure(vector, {"x": x, "y": y}) for model in (ours, theirs)]
    assert measured[0].keys() == measured[1].keys()
    for metric in measured[0]:
        np.testing.assert_allclose(measured[0][metric], measured[1][metric], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PAIRS)
def test_one_seed_starts_both_alike_and_rounds_change_both_alike(name, random):
    clients = {client: texts(name, random, rows) for client, rows in (("a", 5), ("b", 8))}
    vectors = []
    for model in PAIRS[name]:
        algorithm = shoal.FedAvg(model, order="given", batch_size=3, client_optimizer=shoal.sgd(0.5))
        vectors.append(shoal.simulate(shoal.Plan(algorithm, rounds=2), shoal.Population.from_clients(clients)).vector)
    start = np.asarray(PAIRS[name][0].init(shoal.Key.from_seed(0).split("init")))
    assert np.abs(vectors[0] - start).max() > 0.01
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-5)


def test_the_recurrence_and_its_gradient_are_those_of_torchs_lstm(random):
    from shoal.models.recurrence import lstm

    x, outer = (random.normal(size=(20, 3, size)).astype(np.float32) for size in (8, 16))
    layer = torch.nn.LSTM(8, 16)
    at = torch.tensor(x, requires_grad=True)
    outputs, _ = layer(at)
    (outputs * torch.tensor(outer)).sum().backward()

    def ours(x, weights):
        outputs = lstm(x, *weights)
        return jnp.sum(outputs * outer), outputs

    weights = [jnp.asarray(p.detach().numpy()) for p in layer.parameters()]
    (d_x, d_weights), found = jax.grad(ours, (0, 1), has_aux=True)(jnp.asarray(x), weights)
    np.testing.assert_allclose(found, outputs.detach(), atol=1e-5)
    np.testing.assert_allclose(d_x, at.grad, atol=1e-5)
    for gradient, parameter in zip(d_weights, layer.parameters(), strict=True):
        np.testing.assert_allclose(gradient, parameter.grad, rtol=1e-5, atol=1e-5)


def test_dropout_is_in_training_and_not_in_evaluation(random):
    x, y = texts("gpt", random, rows=6)
    dry, wet = torch_gpt(9, **GPT), torch_gpt(9, **GPT, dropout=0.5)
    start = dry.init(shoal.Key.from_seed(0))
    assert np.array_equal(dry.outputs(start, x), wet.outputs(start, x))
    plans = [shoal.Plan(shoal.FedAvg(model, client_optimizer=shoal.sgd(0.5)), rounds=1) for model in (dry, wet)]
    moved = [shoal.simulate(plan, {"a": (x, y)}).vector for plan in plans]
    assert not np.allclose(*moved, atol=1e-3)


def test_symbols_outside_the_vocabulary_are_refused_and_bytes_are_symbols(random):
    model, (x, y) = torch_gpt(9, **GPT), texts("gpt", random, rows=4)
    with pytest.raises(DataError, match="4 of 4 rows hold others"):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), {"a": (x + 9, y)})
    vector = model.init(shoal.Key.from_seed(0))
    assert np.array_equal(model.outputs(vector, x.astype(np.uint8)), model.outputs(vector, x))


def test_plans_of_different_networks_differ():
    plans = [shoal.Plan(shoal.FedAvg(model), rounds=1) for model in (torch_gpt(9, **GPT), torch_gpt(9, **GPT))]
    assert plans[0].digest() == plans[1].digest()
    other = shoal.Plan(shoal.FedAvg(torch_gpt(9, **{**GPT, "heads": 4})), rounds=1)
    assert plans[0].digest() != other.digest()
