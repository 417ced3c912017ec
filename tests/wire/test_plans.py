"""Plans come back from their bytes as they were, or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
from sklearn.neural_network import MLPClassifier

import shoal
from shoal import FedAvg, FedEval, FedProx, Plan, models
from shoal.analytics import CategoryCounts, MeanAndVariance, PresentMean
from shoal.describe import describe
from shoal.errors import UnsupportedError
from shoal.models import SklearnModel
from shoal.models.losses import loss
from shoal.wire import plans
from shoal.wire.messages import PLAN_BYTES
from shoal.wire.plans import plan_bytes, rebuilt

GRID = shoal.Clip(1.0) >> shoal.Weigh(100) >> shoal.Quantize(1e-3, "stochastic")
SPARSE = shoal.Remember(shoal.TopK(0.1)) >> shoal.Clip(1.0)


def of(model, rounds=3, **settings):
    return Plan(FedAvg(model, **settings), rounds=rounds)


PLANS = {
    "linear": of(models.linear(3, outputs=2)),
    "logistic": of(models.logistic(13), epochs=2, batch_size=10, client_optimizer=shoal.sgd(0.1, momentum=0.9)),
    "perceptron": of(models.mlp(8, hidden=(4, 4), classes=3), steps=5, order="given"),
    "cnn": of(models.cnn((8, 8, 1)), batch_size="all"),
    "characters": of(models.char_lstm(20, embedding=2, hidden=3, layers=1, positions="last")),
    "words": of(models.word_lstm(20, embedding=2, hidden=3)),
    "transformer": of(models.gpt(20, length=4, width=4, heads=2, layers=1, dropout=0.1, padding=0)),
    "proximal": Plan(FedProx(models.logistic(2), mu=0.5), rounds=1, cohort=0.5, min_clients=2),
    "evaluation": Plan(FedEval(models.logistic(2)), rounds=1, cohort=shoal.Poisson(0.3)),
    "schema": Plan(
        FedAvg(models.logistic(2)),
        rounds=1,
        data=shoal.Schema(["age", shoal.Column("sex", "category", of=["f", "m"])], "ill", classes=2, where={"set": 1}),
    ),
    "fixed cohort": Plan(FedAvg(models.logistic(2)), rounds=4, cohort=7),
    "schedules": of(
        models.logistic(2),
        client_optimizer=shoal.optimizer(
            "lion", learning_rate=shoal.schedules.piecewise(1.0, factors={2: 0.1, 5: 0.5})
        ),
        server_optimizer=shoal.adam(shoal.schedules.cosine(0.1, rounds=10)),
    ),
    "grid": of(models.logistic(2), aggregation=GRID >> shoal.PlainSum() >> shoal.Mean()),
    "normal noise of a client": of(
        models.logistic(2),
        aggregation=shoal.Clip(1.0) >> shoal.LocalGaussian(1.0, 1e-6) >> shoal.PlainSum() >> shoal.Over(clients=3),
    ),
    "noise of a client": of(
        models.logistic(2), aggregation=shoal.LocalLaplace(2.0, 1.0) >> shoal.PlainSum() >> shoal.Over(clients=3)
    ),
    "answers of a client": of(
        models.logistic(2), aggregation=shoal.RandomizedResponse(2.0, ones=2) >> shoal.PlainSum() >> shoal.Over(3)
    ),
    "integer noise": of(
        models.logistic(2),
        aggregation=shoal.AdaptiveClip(1.0, quantile=0.8)
        >> shoal.Rotate(3)
        >> shoal.Quantize(1e-3)
        >> shoal.SecureSum(2)
        >> shoal.DiscreteGaussian(1.0, clients=5),
    ),
    "other integer noise": of(
        models.logistic(2), aggregation=GRID >> shoal.SecureSum(2) >> shoal.Skellam(1.0, clients=5)
    ),
    "sparse": of(models.logistic(2), aggregation=SPARSE >> shoal.PlainSum() >> shoal.Gaussian(1.0, clients=5)),
    "median": of(models.logistic(2), aggregation=shoal.Round(3) >> shoal.Collect() >> shoal.Median()),
    "shares": of(
        models.logistic(2),
        aggregation=shoal.Clip(1.0)
        >> shoal.Quantize(1e-3)
        >> shoal.NoiseShare(1.0, at_least=3)
        >> shoal.SecureSum(threshold=3)
        >> shoal.Over(clients=3),
    ),
    "statistics": Plan(MeanAndVariance((3,)), rounds=1),
    "present": Plan(PresentMean((3,), column="z"), rounds=1),
    "categories": Plan(CategoryCounts({0: 3, 4: (1, 7)}), rounds=1),
}
ESTIMATORS = {
    "SGD": of(SklearnModel(SGDClassifier(loss="log_loss", alpha=1e-3), features=4, classes=("no", "yes", "maybe"))),
    "regression": of(SklearnModel(SGDRegressor(), features=4)),
    "network": of(SklearnModel(MLPClassifier((5, 3)), features=4, classes=(0, 1))),
    "Gaussian": of(SklearnModel(GaussianNB(), features=4, classes=(0, 1)), rounds=1),
    "multinomial": of(SklearnModel(MultinomialNB(), features=4, classes=(0, 1)), rounds=1),
    "Bernoulli": of(SklearnModel(BernoulliNB(binarize=None), features=4, classes=(0, 1)), rounds=1),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_of_shoals_own_parts_comes_back_equal(name):
    data = plan_bytes(PLANS[name])
    assert hashlib.sha256(data).hexdigest() == PLANS[name].digest()
    back = rebuilt(data)
    assert back == PLANS[name]
    assert str(back) == str(PLANS[name])
    assert plan_bytes(back) == data


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_plan_with_an_estimator_comes_back_with_the_same_settings(name):
    plan = ESTIMATORS[name]
    back = rebuilt(plan_bytes(plan))
    assert back.digest() == plan.digest()
    mine, other = (vars(p.algorithm)["model"] for p in (plan, back))
    assert type(mine.estimator) is type(other.estimator)
    assert mine.estimator.get_params() == other.estimator.get_params()
    assert (mine.features, mine.classes, mine.layout) == (other.features, other.classes, other.layout)


def test_a_plan_that_measures_a_model_travels_without_the_model():
    plan = Plan(FedEval(models.logistic(2), np.arange(3, dtype=np.float32)), rounds=1)
    back = rebuilt(plan_bytes(plan))
    assert (back, back.digest()) == (plan, plan.digest())
    other = Plan(FedEval(models.logistic(2), np.ones(3, np.float32)), rounds=1)
    assert other.digest() != plan.digest()
    state = back.algorithm.init(shoal.Key.from_seed(0))
    assert state.vector.shape == (3,) and np.isnan(state.vector).all()


def test_every_class_that_may_be_made_is_in_some_plan_here():
    text = " ".join(plan_bytes(plan).decode() for plan in PLANS.values())
    kinds = {kind.__qualname__ for kinds in plans._PARTS.values() for kind in kinds}
    assert {kind for kind in kinds if f'"shoal.{kind}"' in text} == kinds


def test_no_two_classes_of_a_field_have_one_name():
    for kinds in plans._PARTS.values():
        assert len({kind.__qualname__ for kind in kinds}) == len(kinds)


@pytest.mark.parametrize("name", sorted(plans._OPTIMIZERS))
def test_every_optimizer_that_may_be_made_is_one(name):
    plan = of(models.logistic(2), server_optimizer=shoal.optimizer(name, learning_rate=0.1))
    assert rebuilt(plan_bytes(plan)) == plan


def mine(outputs, labels):
    return outputs - labels


NEEDS_A_FILE = {
    "a function": FedAvg(models.from_functions(lambda key: {"w": key}, mine, loss="squared_error")),
    "a loss": FedAvg(models.JaxModel(models.linear(3).network, loss(mine))),
    "weights by class": FedAvg(
        SklearnModel(SGDClassifier(class_weight={0: 1.0, 1: 2.0}), features=2, classes=(0, 1))
    ),
    "an endless number": FedAvg(SklearnModel(SGDClassifier(tol=-math.inf), features=2, classes=(0, 1))),
    "many threads": FedAvg(SklearnModel(SGDClassifier(n_jobs=10**6), features=2, classes=(0, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", NEEDS_A_FILE)
def test_a_plan_with_other_parts_needs_its_study_file(name):
    described = {**json.loads(plan_bytes(PLANS["linear"])), "algorithm": describe(NEEDS_A_FILE[name])}
    with pytest.raises(UnsupportedError, match=r"only its study file defines \(.*give it with --study"):
        rebuilt(json.dumps(described, sort_keys=True).encode())


def changed(name, *path, to):
    described = json.loads(plan_bytes({**PLANS, **ESTIMATORS}[name]))
    place = described
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(described, sort_keys=True).encode()


HOSTILE = {
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe",
    "a list": b"[1, 2]",
    "nothing": b"{}",
    "depth": b"[" * 100_000,
    "NaN": b'{"rounds": NaN}',
    "a long number": b'{"rounds": ' + b"9" * 10_000 + b"}",
    "too much": b" " * (PLAN_BYTES + 1),
    "a module of the system": changed("linear", "algorithm", to={"is": "os.system", "command": "true"}),
    "a class of another field": changed("linear", "algorithm", to={"is": "shoal.Clip", "norm": 1.0}),
    "a class without a field": changed("linear", "rounds", to={"is": "shoal.Clip", "norm": 1.0}),
    "a class of Shoal that is not listed": changed("linear", "algorithm", "model", to={"is": "shoal.Population"}),
    "a name that is no text": changed("linear", "algorithm", "is", to=["shoal.FedAvg"]),
    "an unknown setting": changed("linear", "algorithm", "mood", to="good"),
    "a setting that is not given": changed("evaluation", "algorithm", "fingerprint", to="0"),
    "no rounds": changed("linear", "rounds", to=0),
    "text for rounds": changed("linear", "rounds", to="many"),
    "another layout": changed("linear", "layout", to="0" * 64),
    "a model that is not there": changed("linear", "algorithm", "model", to=None),
    "an aggregation out of order": changed(
        "grid", "algorithm", "aggregation", "steps", to=[{"is": "shoal.Quantize", "step": 1.0}]
    ),
    "another function of optax": changed("logistic", "algorithm", "client_optimizer", "name", to="global_norm"),
    "another schedule of optax": changed(
        "schedules", "algorithm", "server_optimizer", "arguments", 0, 1, "name", to="join_schedules"
    ),
    "a thousand layers": changed("transformer", "algorithm", "model", "network", "layers", to=10**9),
    "a deep perceptron": changed("perceptron", "algorithm", "model", "network", "widths", to=[1] * 10_000),
    "a width that is text": changed("perceptron", "algorithm", "model", "network", "widths", to=["a", "b"]),
    "a huge estimator": changed("SGD", "algorithm", "model", "features", to=10**12),
    "a wide estimator": changed("network", "algorithm", "model", "estimator", "hidden_layer_sizes", to=[10**6, 10**6]),
    "an estimator of another place": changed("SGD", "algorithm", "model", "estimator", "is", to="evil.SGDClassifier"),
    "another estimator": changed("SGD", "algorithm", "model", "estimator", "is", to="sklearn.svm._classes.SVC"),
    "a loss that scikit-learn does not have": changed("SGD", "algorithm", "model", "estimator", "loss", to="os.system"),
    "an average": changed("SGD", "algorithm", "model", "estimator", "average", to=True),
    "codes to be counted up": changed("categories", "algorithm", "features", to=[[0, 10**12]]),
    "another way to write the same": plan_bytes(PLANS["linear"]).replace(b", ", b","),
    "one name twice": plan_bytes(PLANS["linear"])[:-1] + b', "rounds": 3}',
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_description_is_refused_for(name):
    loaded = set(sys.modules)
    tracemalloc.start()
    with pytest.raises(UnsupportedError):
        rebuilt(HOSTILE[name])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30 * 2**20
    assert not {
        module for module in set(sys.modules) - loaded if not module.startswith(("jax", "sklearn", "scipy", "joblib"))
    }


def test_a_plan_with_a_long_text_is_refused_with_a_short_message():
    with pytest.raises(UnsupportedError) as raised:
        rebuilt(changed("linear", "algorithm", "is", to="x" * 10**6))
    assert len(str(raised.value)) < 500
    with pytest.raises(UnsupportedError) as raised:
        rebuilt(changed("linear", "rounds", to="x" * 10**6))
    assert len(str(raised.value)) < 500


def test_a_plan_that_is_too_long_is_not_sent():
    with pytest.raises(UnsupportedError, match="at most 2,097,152 are sent"):
        plan_bytes(Plan(CategoryCounts({0: 400_000}), rounds=1))


@given(st.data())
def test_a_damaged_description_is_a_plan_error_or_another_plan_of_that_digest(data):
    whole = bytearray(plan_bytes(PLANS["schedules"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(32, 126))
    try:
        plan = rebuilt(bytes(whole))
    except UnsupportedError:
        return
    assert plan.digest() == hashlib.sha256(whole).hexdigest()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["shoal.Clip", "sgd"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["is", "name", "steps", "model", "features", "arguments"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    VALUES,
    st.sampled_from(["algorithm", "rounds", "cohort", "min_clients", "model", "aggregation", "server_optimizer"]),
)
def test_any_value_in_a_description_is_unsupported_or_a_plan_of_that_digest(value, field):
    described = json.loads(plan_bytes(PLANS["linear"]))
    (described if field in described else described["algorithm"])[field] = value
    data = json.dumps(described, sort_keys=True).encode()
    try:
        plan = rebuilt(data)
    except UnsupportedError:
        return
    assert plan.digest() == hashlib.sha256(data).hexdigest()
