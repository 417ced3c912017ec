"""torch modules as models: beside JAX models, optax and plain torch loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import shoal
from shoal import models
from shoal.errors import DataError, SettingError, UnsupportedError
from shoal.examples import Examples
from tests.conftest import classification, regression

torch = pytest.importorskip(
    "torch", reason="needs torch, which the test command leaves out: run  make torch  and test again"
)
nn = torch.nn

from shoal.models.torch_optimizers import rule  # noqa: E402 (needs torch)

OPTIMIZERS = {
    "sgd": shoal.sgd(0.1),
    "momentum": shoal.sgd(0.1, momentum=0.9),
    "nesterov": shoal.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": shoal.adam(0.01),
    "adamw": shoal.optimizer("adamw", learning_rate=0.01, weight_decay=0.1),
    "yogi": shoal.yogi(0.01),
    "adagrad": shoal.adagrad(0.1),
    "rmsprop": shoal.optimizer("rmsprop", learning_rate=0.01, momentum=0.5, nesterov=True),
    "rmsprop outside": shoal.optimizer("rmsprop", learning_rate=0.01, eps_in_sqrt=False, initial_scale=0.1),
    "schedule": shoal.sgd(shoal.schedules.cosine(0.5, rounds=10)),
}


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def twin(module, loss):
    """The same network and weights in JAX, as functions of the module's own named arrays."""

    def apply(p, x):
        hidden = jax.nn.relu(x @ p["0.weight"].T + p["0.bias"])
        return hidden @ p["2.weight"].T + p["2.bias"]

    state = {name: jnp.asarray(array.numpy()) for name, array in module.state_dict().items()}
    return models.from_functions(lambda key: state, apply, loss=loss)


def as_jax(model, vector, twin):
    """A torch model's vector as its JAX twin's."""
    return np.asarray(twin.vector({k: jnp.asarray(v) for k, v in model.layout.unflatten(vector).items()}))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_makes_the_steps_that_optax_makes(name, random):
    weights = torch.tensor(random.normal(size=7), dtype=torch.float32)
    theirs = jnp.asarray(weights.numpy().copy())
    build = OPTIMIZERS[name].build(3)
    memory, step = build.init(theirs), rule(OPTIMIZERS[name], 3).start(weights)
    for _ in range(9):
        gradient = random.normal(size=7).astype(np.float32)
        step(torch.from_numpy(gradient))
        update, memory = build.update(jnp.asarray(gradient), memory, theirs)
        theirs = optax.apply_updates(theirs, update)
    np.testing.assert_allclose(weights.numpy(), theirs, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("algorithm", [shoal.FedAvg, shoal.FedProx])
@pytest.mark.parametrize("given", [
    {"batch_size": 4, "epochs": 2}, {"batch_size": "all", "epochs": 3}, {"steps": 7, "batch_size": 2},
    {"batch_size": 4, "client_optimizer": shoal.adam(0.01)}, {"client_optimizer": shoal.sgd(0.1, momentum=0.9)},
])  # fmt: skip
def test_a_torch_model_learns_what_the_same_jax_model_learns(algorithm, given):
    population = classification(sizes=(7, 3, 12, 1, 300), classes=3)
    model = models.from_torch(mlp(), loss="cross_entropy")
    other = twin(model.module, "cross_entropy")
    runs = [
        shoal.simulate(shoal.Plan(algorithm(m, order="given", **given), rounds=3), population, test=population)
        for m in (model, other)
    ]
    np.testing.assert_allclose(as_jax(model, runs[0].vector, other), runs[1].vector, rtol=1e-4, atol=1e-5)
    for metric in ("loss", "test loss", "test accuracy"):
        assert runs[0].history.rows[-1][metric] == pytest.approx(runs[1].history.rows[-1][metric], rel=1e-4)


@pytest.mark.parametrize(("name", "outputs"), [("binary_cross_entropy", 1), ("squared_error", 1), ("cross_entropy", 3)])
def test_losses_metrics_and_predictions_are_those_of_jax_models(name, outputs, random):
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs))
    model, population = models.from_torch(module, loss=name), classification(classes=max(outputs, 2))
    if name == "squared_error":
        population = regression()
    other = twin(module, name)
    vector = model.init(shoal.Key.from_seed(0))
    theirs = as_jax(model, vector, other)
    one, two = shoal.evaluate(model, vector, population), shoal.evaluate(other, theirs, population)
    assert one.pooled == pytest.approx(two.pooled, rel=1e-5)
    x = population.columns["x"]
    np.testing.assert_allclose(model.predict(vector, x), other.predict(theirs, x), rtol=1e-5)
    update = shoal.FedAvg(model).training
    trained = [m.train(v, population["c0"], training=update, round=0, key=shoal.Key.from_seed(1)) for m, v in
               ((model, vector), (other, theirs))]  # fmt: skip
    np.testing.assert_allclose(as_jax(model, trained[0].update, other), trained[1].update, rtol=1e-4, atol=1e-6)


def test_the_layout_names_what_the_module_names():
    model = models.from_torch(mlp(), loss="cross_entropy")
    assert [part.name for part in model.layout.parts] == [name for name, _ in model.module.named_parameters()]


def test_a_fitted_module_predicts_what_the_model_predicts_and_takes_nothing_from_it(labels):
    model = models.from_torch(mlp(), loss="cross_entropy")
    vector = model.init(shoal.Key.from_seed(0)) + 1
    fitted = model.fitted(vector)
    rows = labels.columns["x"]
    with torch.no_grad():
        theirs = fitted(torch.from_numpy(rows.copy())).numpy()
        fitted[0].weight.zero_()
    np.testing.assert_allclose(model.outputs(vector, rows), theirs, rtol=1e-6)
    assert model.fitted(vector)[0].weight.abs().sum() > 0


def test_a_function_makes_fresh_weights_for_every_seed_and_leaves_the_callers_numbers_alone():
    model = models.from_torch(lambda: nn.Linear(4, 2), loss="cross_entropy")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other = (model.init(shoal.Key.from_seed(seed)) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes() != other.tobytes()
    assert torch.equal(torch.get_rng_state(), state)


def tied():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    return module


def strided():
    module = nn.Linear(4, 4)
    module.weight = nn.Parameter(torch.zeros(4, 4).T)
    return module


def infinite():
    module = nn.Linear(4, 4)
    module.register_buffer("mask", torch.full((2,), torch.inf))
    return module


@pytest.mark.parametrize(("module", "says"), [
    (nn.ReLU(), "has no parameters to train"),
    (nn.Linear(4, 2).requires_grad_(False), "has no parameters to train"),
    (tied(), "0.weight and 1.weight are the same numbers under two names.*use it twice"),
    (nn.LazyLinear(3), "weight has no shape yet: run one batch"),
    (nn.Linear(4, 2).double(), r"weight is torch.float64.*module.float\(\)"),
    (strided(), "weight is not contiguous"),
    (infinite(), "the buffer mask is not finite.*persistent=False"),
    (lambda: 3, "makes a int, and an nn.Module is wanted"),
    (7, "of a function without arguments that makes one, not of a int"),
])  # fmt: skip
def test_a_module_that_cannot_travel_is_refused_with_what_to_do(module, says):
    with pytest.raises(SettingError, match=says):
        models.from_torch(module, loss="cross_entropy")


@pytest.mark.parametrize(("factory", "says"), [
    (0.1, "is a function from parameters to a torch.optim.Optimizer.*not a float"),
    (lambda params: None, "returns a torch.optim.Optimizer.*not a NoneType"),
    (lambda params: torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1), "it put in 1 of its own"),
    (lambda: None, "cannot step: TypeError"),
    (torch.optim.LBFGS, "cannot step: TypeError"),
])  # fmt: skip
def test_an_optimizer_factory_that_returns_nonsense_is_refused_with_what_came(factory, says):
    with pytest.raises(SettingError, match=says):
        models.from_torch(nn.Linear(4, 2), loss="cross_entropy", optimizer=factory)


def test_an_optimizer_that_is_not_there_for_torch_is_refused_with_what_there_is():
    model = models.from_torch(nn.Linear(4, 2), loss="cross_entropy")
    with pytest.raises(UnsupportedError, match=r"lion is not there.*sgd, adam.*torch.optim.Adam"):
        shoal.FedAvg(model, client_optimizer=shoal.optimizer("lion", learning_rate=0.1))
    with pytest.raises(UnsupportedError, match="nesterov"):
        shoal.FedAvg(model, client_optimizer=shoal.optimizer("adam", learning_rate=0.1, nesterov=True))
    brings = models.from_torch(nn.Linear(4, 2), loss="cross_entropy", optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    with pytest.raises(SettingError, match="leave client_optimizer out"):
        shoal.FedAvg(brings, client_optimizer=shoal.sgd(0.1))


def test_a_factorys_optimizer_is_torchs_own_and_fresh_for_every_client(labels):
    model = models.from_torch(mlp(), loss="cross_entropy", optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    ours = models.from_torch(mlp(), loss="cross_entropy")
    given = {"epochs": 2, "batch_size": 4, "order": "given"}
    plans = [
        shoal.Plan(shoal.FedAvg(model, **given), rounds=2),
        shoal.Plan(shoal.FedAvg(ours, client_optimizer=shoal.adam(0.01), **given), rounds=2),
    ]
    one, other = (shoal.simulate(plan, labels) for plan in plans)
    np.testing.assert_allclose(one.vector, other.vector, rtol=1e-4, atol=1e-6)


def test_rows_and_labels_that_do_not_fit_are_refused(labels):
    model = models.from_torch(nn.Linear(5, 2), loss="cross_entropy")
    with pytest.raises(DataError, match=r"rows of 'x' have shape \(4,\).*does not take"):
        model.check(labels.everything())
    with pytest.raises(DataError, match="there is no column 'pixels'"):
        models.from_torch(nn.Linear(4, 2), loss="cross_entropy", x="pixels").check(labels.everything())
    with pytest.raises(DataError, match="labels are whole numbers from 0 to 1"):
        models.from_torch(nn.Linear(4, 2), loss="cross_entropy").check(Examples.of(x=np.zeros((2, 4)), y=[0, 2]))


def test_a_loss_gives_one_number_a_row(labels):
    model = models.from_torch(nn.Linear(4, 2), loss=lambda out, y: (out[:, 0] - y).square().mean())
    with pytest.raises(SettingError, match=r"one number for each of 1 rows, not \(\)"):
        shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=1), labels)
    with pytest.raises(SettingError, match="a loss is a function or one of"):
        models.from_torch(nn.Linear(4, 2), loss="hinge")


def test_frozen_parameters_never_travel_and_stay_as_they_are(labels):
    module = mlp()
    module[0].requires_grad_(False)
    model = models.from_torch(module, loss="cross_entropy")
    assert [part.name for part in model.layout.parts] == ["2.weight", "2.bias"]
    result = shoal.simulate(shoal.Plan(shoal.FedAvg(model), rounds=2), classification(classes=3))
    assert torch.equal(model.fitted(result.vector)[0].weight, module[0].weight)
    assert not torch.equal(model.fitted(result.vector)[2].weight, module[2].weight)


class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.inner, self.scale = nn.Linear(4, 2), scale

    def forward(self, x):
        return self.inner(x) * self.scale


class Other(Net):
    def forward(self, x):
        return self.inner(x) + self.scale


def test_plans_with_different_modules_have_different_digests():
    def plan(module, **given):
        return shoal.Plan(shoal.FedAvg(models.from_torch(module, loss="cross_entropy", **given)), rounds=1).digest()

    def same(kind, **given):
        torch.manual_seed(0)
        return kind(**given)

    def adam(rate):
        return lambda params: torch.optim.Adam(params, lr=rate)

    frozen = same(Net)
    frozen.inner.bias.requires_grad_(False)
    assert plan(same(Net)) == plan(same(Net))
    torch.manual_seed(1)
    others = [
        plan(same(Net)), plan(same(Other)), plan(same(Net, scale=2.0)), plan(Net()), plan(frozen), plan(Net),
        plan(same(Net), optimizer=adam(0.1)), plan(same(Net), optimizer=adam(0.2)),
    ]  # fmt: skip
    assert len(set(others)) == len(others)
