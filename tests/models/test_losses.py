"""Losses beside their formulas and beside scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics

import shoal
from shoal.errors import DataError, SettingError
from shoal.models.losses import BinaryCrossEntropy, CrossEntropy, MaskedCrossEntropy, SquaredError, loss


def test_cross_entropy_is_scikit_learns(random):
    scores, labels = random.normal(size=(20, 4)), random.integers(0, 4, 20)
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    found = CrossEntropy()(jnp.asarray(scores, jnp.float32), jnp.asarray(labels))
    assert float(found.mean()) == pytest.approx(metrics.log_loss(labels, chances, labels=range(4)), rel=1e-5)


@pytest.mark.parametrize("padding", [-1, 0, 3])
def test_labels_that_are_padding_count_neither_for_loss_nor_for_accuracy(padding, random):
    scores, labels = random.normal(size=(5, 6, 4)).astype(np.float32), random.integers(0, 4, (5, 6))
    labels[1, 2:] = labels[2] = padding
    masked = MaskedCrossEntropy(padding)
    masked.check(labels, (6, 4))
    losses, accuracies = np.zeros(5), np.zeros(5)
    for row in range(5):
        present = labels[row] != padding
        if present.any():
            chances = np.exp(scores[row]) / np.exp(scores[row]).sum(1, keepdims=True)
            losses[row] = -np.log(chances[present, labels[row][present]]).mean()
            accuracies[row] = (scores[row].argmax(1) == labels[row])[present].mean()
    np.testing.assert_allclose(masked(jnp.asarray(scores), jnp.asarray(labels)), losses, rtol=1e-4)
    found = masked.metrics(jnp.asarray(scores), jnp.asarray(labels))["accuracy"]
    np.testing.assert_allclose(found, accuracies, rtol=1e-5)
    gradient = jax.grad(lambda s: jnp.sum(masked(s, jnp.asarray(labels))))(jnp.asarray(scores))
    assert np.array_equal(np.abs(gradient).max(2) > 0, labels != padding)


def test_binary_cross_entropy_is_scikit_learns(random):
    logits, labels = random.normal(size=20) * 5, random.integers(0, 2, 20)
    found = BinaryCrossEntropy()(jnp.asarray(logits[:, None], jnp.float32), jnp.asarray(labels))
    assert float(found.mean()) == pytest.approx(metrics.log_loss(labels, 1 / (1 + np.exp(-logits))), rel=1e-4)


@pytest.mark.parametrize("label", [0, 1])
def test_the_gradient_of_binary_cross_entropy_is_right_at_zero_and_far_out(label):
    gradient = jax.grad(lambda z: BinaryCrossEntropy()(z[None], jnp.array([label]))[0])
    for z in (0.0, -100.0, 100.0):
        wanted = 1 / (1 + np.exp(-z)) - label if abs(z) < 50 else float(z > 0) - label
        assert float(gradient(jnp.float32(z))) == pytest.approx(wanted, abs=1e-6)


def test_squared_error_is_half_the_square(random):
    outputs, labels = random.normal(size=(5, 1)), random.normal(size=5)
    found = SquaredError()(jnp.asarray(outputs), jnp.asarray(labels))
    np.testing.assert_allclose(found, 0.5 * (outputs[:, 0] - labels) ** 2, rtol=1e-5)


def test_a_loss_of_the_users_own(random):
    model = shoal.models.from_functions(
        lambda key: {"w": jnp.zeros(4)}, lambda p, x: x @ p["w"], loss=lambda out, y: jnp.abs(out - y)
    )
    population = shoal.Population.from_arrays(random.normal(size=(6, 4)), np.arange(6.0), groups=[0] * 6)
    assert shoal.evaluate(model, np.zeros(4, np.float32), population).pooled["loss"] == pytest.approx(2.5)


def test_a_loss_that_is_not_one_number_a_row_is_refused():
    wrong = loss(lambda out, y: jnp.mean(out))
    with pytest.raises(SettingError, match="one number for each of 3 rows"):
        wrong(jnp.zeros(3), jnp.zeros(3))


def test_an_unknown_loss_is_refused():
    with pytest.raises(SettingError, match="one of cross_entropy"):
        loss("hinge")


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 3], "1 of 3 rows lie outside, the first is row 2"), ([0, -1], "row 1"), ([0.5, 1.0], "float64")],
)
def test_labels_that_are_no_class_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        CrossEntropy().check(np.array(labels), (3,))


def test_auc_is_scikit_learns(random):
    for _ in range(20):
        labels = random.integers(0, 2, 30)
        scores = np.round(random.normal(size=30), 1)  # with ties
        if 0 < labels.sum() < 30:
            assert shoal.models.auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert np.isnan(shoal.models.auc([1, 2], [1, 1]))


COLUMN = np.zeros((6, 1), int)


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        (shoal.models.logistic(2), COLUMN, r"by y.ravel\(\)"),
        (shoal.models.logistic(2, classes=3), COLUMN, r"by y.ravel\(\)"),
        (shoal.models.linear(2), COLUMN, r"by y.ravel\(\)"),
        (shoal.models.linear(2, outputs=2), np.zeros(6), r"shape \(\), and shape \(2,\)"),
        (
            shoal.models.from_functions(
                lambda key: {"w": jnp.zeros((2, 2))}, lambda p, x: x @ p["w"], loss="binary_cross_entropy"
            ),
            np.zeros(6),
            "use cross_entropy",
        ),
    ],
)
def test_labels_that_do_not_fit_the_outputs_are_refused_with_the_fix(model, labels, message):
    population = shoal.Population.from_arrays(np.zeros((6, 2)), labels, groups=[0] * 6)
    with pytest.raises(DataError, match=message):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), population)


def test_whole_labels_may_come_as_floats_and_several_numbers_a_row_are_averaged(random):
    x = random.normal(size=(12, 2)).astype(np.float32)
    labels = random.integers(0, 3, 12)
    model = shoal.models.logistic(2, classes=3)
    runs = [
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=2), {"a": (x, labels.astype(dtype))})
        for dtype in (np.int64, np.float64)
    ]
    assert np.array_equal(runs[0].vector, runs[1].vector)

    wide, y = shoal.models.linear(2, outputs=2), random.normal(size=(12, 2)).astype(np.float32)
    result = shoal.simulate(
        shoal.Plan(shoal.FedAvg(wide, batch_size="all", client_optimizer=shoal.sgd(1.0)), rounds=1), {"a": (x, y)}
    )
    gradient = -x.T @ y / 12 / 2  # of the mean over rows and outputs of half the square, at zero
    np.testing.assert_allclose(result.params["weight"], -gradient, rtol=1e-4, atol=1e-6)
