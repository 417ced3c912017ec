"""The workloads: synthetic clients of a given shape, the same at every run.

W1: logistic regression 60 x 10, 1000 clients of 10 to 730 examples, 100 a round, batches of 10.
W2: a CNN with 5 x 5 kernels, 1.69 M parameters, 20 clients a round of about 100 pictures, batches of 20.
W3: a CNN with 3 x 3 kernels and dropout, 1.63 M parameters, 50 clients a round of 50 pictures, batches of 10.
W4: a two-layer LSTM of 256 with an embedding of 8 over 80 symbols, 10 clients a round of 40 texts, batches of 10.
W5: logistic regression of 10 features, 1000 of 10,000 clients a round, 20 examples each, one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import shoal
from shoal import models


@dataclass(frozen=True)
class Workload:
    """A population, a model for it, and how a client trains."""

    name: str
    population: shoal.Population
    model: Any
    batch: int
    rate: float
    cohort: int

    def plan(self, rounds: int, order: Any = "given") -> shoal.Plan:
        """The plan for a number of rounds; the hand-written loops go through examples in the order given."""
        algorithm = shoal.FedAvg(self.model, batch_size=self.batch, order=order, client_optimizer=shoal.sgd(self.rate))
        return shoal.Plan(algorithm, rounds=rounds, cohort=self.cohort)

    def cohorts(self, rounds: int) -> np.ndarray[Any, Any]:
        """The places of the clients that `simulate` draws with seed 0: (rounds, cohort)."""
        key, sampler = shoal.Key.from_seed(0), shoal.Fixed(self.cohort)
        return np.stack([sampler.draw(key.split("round", r, "cohort"), len(self.population)) for r in range(rounds)])

    def start(self) -> Any:
        """The parameters that `simulate` begins with, as the network's own tree."""
        return self.model.network.init(shoal.Key.from_seed(0).split("init").jax())


def make(name: str) -> Workload:
    """A workload by name."""
    return {"W1": _w1, "W2": _w2, "W3": _w3, "W4": _w4, "W5": _w5}[name]()


def _w1() -> Workload:
    random = np.random.default_rng(1)
    sizes = np.minimum(np.maximum(10, random.lognormal(np.log(50) - 0.32, 0.8, 1000).astype(int)), 730)
    truth, spread = random.normal(0, 1, (60, 10)), np.arange(1, 61) ** -0.6
    clients: dict[str, Any] = {}
    for place, size in enumerate(sizes):
        own = truth + random.normal(0, 0.5, (60, 10))
        x = (random.normal(0, spread, (size, 60)) + random.normal(0, 0.5, 60)).astype(np.float32)
        clients[str(place)] = x, (x @ own).argmax(1)
    return Workload("W1", shoal.Population.from_clients(clients), models.logistic(60, classes=10), 10, 0.05, 100)


def _w5() -> Workload:
    random = np.random.default_rng(5)
    truth, clients = random.normal(0, 1, 10), 10_000
    x = random.normal(0, 1, (clients, 20, 10)).astype(np.float32)
    own = truth + random.normal(0, 0.3, (clients, 10))
    y = (np.einsum("cnf,cf->cn", x, own) > 0).astype(np.int64)
    population = shoal.Population.from_arrays(x.reshape(-1, 10), y.ravel(), groups=np.repeat(np.arange(clients), 20))
    return Workload("W5", population, models.logistic(10), 20, 0.05, 1000)


def _w2() -> Workload:
    random = np.random.default_rng(2)
    population = _pictures(random, random.integers(80, 121, 500), classes=62, side=28, channels=1)
    return Workload("W2", population, models.cnn(classes=62), 20, 0.05, 20)


def _w3() -> Workload:
    population = _pictures(np.random.default_rng(3), np.full(1000, 50), classes=10, side=32, channels=3)
    model = models.from_functions(w3_init, lambda p, x: w3_apply(p, x, None), loss="cross_entropy", train=w3_apply)
    return Workload("W3", population, model, 10, 0.1, 50)


def _w4() -> Workload:
    random = np.random.default_rng(4)
    chances = random.dirichlet(np.full(80, 0.05), 80).cumsum(1)
    texts = np.zeros((4000, 81), np.int64)
    texts[:, 0] = random.integers(0, 80, len(texts))
    for i in range(80):
        drawn = (chances[texts[:, i]] < random.random((len(texts), 1))).sum(1)
        texts[:, i + 1] = np.minimum(drawn, 79)
    groups = np.repeat([f"{place:03}" for place in range(100)], 40)
    population = shoal.Population.from_arrays(texts[:, :80], texts[:, 80], groups=groups)
    return Workload("W4", population, models.char_lstm(80, positions="last"), 10, 0.5, 10)


def _pictures(random: np.random.Generator, sizes: Any, *, classes: int, side: int, channels: int) -> shoal.Population:
    """Smooth random prototypes of each class with noise."""
    prototypes = random.normal(0, 1, (classes, side, side, channels)).astype(np.float32)
    for axis in (1, 2):
        prototypes = prototypes + np.roll(prototypes, 1, axis)
    labels = random.integers(0, classes, sizes.sum())
    noise = random.normal(0, 1, (sizes.sum(), side, side, channels)).astype(np.float32)
    groups = np.repeat([f"{place:05}" for place in range(len(sizes))], sizes)
    return shoal.Population.from_arrays((prototypes[labels] + noise) / 4, labels, groups=groups)


def w3_init(key: jax.Array) -> dict[str, Any]:
    """Glorot weights for two 3 x 3 convolutions and two dense layers."""
    shapes = {"c1": (3, 3, 3, 32), "c2": (3, 3, 32, 64), "f1": (12544, 128), "f2": (128, 10)}
    glorot = jax.nn.initializers.glorot_uniform()
    weights = {n: glorot(k, s) for k, (n, s) in zip(jax.random.split(key, 4), shapes.items(), strict=True)}
    return weights | {f"{n} bias": jnp.zeros(s[-1]) for n, s in shapes.items()}


def w3_apply(p: Any, x: Any, key: Any, convolve: Any = None) -> Any:
    """The CIFAR10 network of pfl-research's benchmark; with dropout where there is a key."""
    convolve = convolve or _convolve
    x = jax.nn.relu(convolve(x, p["c1"], "VALID") + p["c1 bias"])
    x = jax.nn.relu(convolve(x, p["c2"], "VALID") + p["c2 bias"])
    rows, high, wide, channels = x.shape
    x = x.reshape(rows, high // 2, 2, wide // 2, 2, channels).max((2, 4))
    keys = (None, None) if key is None else jax.random.split(key)
    x = _dropout(x.reshape(rows, -1), 0.25, keys[0])
    x = _dropout(jax.nn.relu(x @ p["f1"] + p["f1 bias"]), 0.5, keys[1])
    return x @ p["f2"] + p["f2 bias"]


def _convolve(x: Any, kernel: Any, padding: str) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _dropout(x: Any, rate: float, key: Any) -> Any:
    return x if key is None else jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)
