"""Hand-written JAX loops, each for one purpose and with nothing around it: what the engine is held against.

`scan`: one jitted call a round, a scan over the clients, each with its own number of batches. `vmap`: one jitted
call a round, all clients in lockstep (equal clients only). `step`: one jitted call a batch, loops in Python.
`patches`: as scan, the convolutions written as patches and a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from benchmarks.workloads import Workload, w3_apply
from shoal.models.zoo import _pool


class JaxFloor:
    """Clients' data as one array, every client padded to whole batches."""

    def __init__(self, work: Workload, mode: str) -> None:
        self._work, self._mode, self._batch, rate = work, mode, work.batch, work.rate
        counts, offsets = work.population.counts, work.population.offsets
        batches = -(-counts // self._batch)
        self._first = np.concatenate([[0], np.cumsum(batches)])
        self._counts = counts
        columns = work.population.columns
        x = np.zeros((self._first[-1] * self._batch, *columns["x"].shape[1:]), np.float32)
        y = np.zeros(len(x), np.int32)
        for client, (start, count) in enumerate(zip(offsets, counts, strict=False)):
            at = self._first[client] * self._batch
            x[at : at + count], y[at : at + count] = (columns[c][start : start + count] for c in "xy")
        self._x = jnp.asarray(x.reshape(-1, self._batch, *x.shape[1:]))
        self._y = jnp.asarray(y.reshape(-1, self._batch))
        gradient = jax.grad(_loss(work, _forward(work, "patches" if mode == "patches" else "lax")))

        def step(p: Any, x: Any, y: Any, left: Any, key: Any) -> Any:
            there = (jnp.arange(self._batch) < left).astype(jnp.float32)
            return jax.tree.map(lambda v, d: v - rate * d, p, gradient(p, x, y, there, key))

        self._step = step
        self._round = {"scan": self._scan, "patches": self._scan, "vmap": self._vmap, "step": self._steps}[mode]()
        self.params = jax.tree.map(jnp.asarray, work.start())

    def run(self, rounds: int) -> None:
        """Rounds from the beginning."""
        p = jax.tree.map(jnp.asarray, self._work.start())
        key = jax.random.key(0)
        for number, cohort in enumerate(self._work.cohorts(rounds)):
            first, count = self._first[cohort].astype(np.int32), self._counts[cohort].astype(np.int32)
            p = jax.block_until_ready(self._round(self._x, self._y, p, first, count, jax.random.fold_in(key, number)))
        self.params = p

    def vector(self) -> np.ndarray[Any, Any]:
        """The parameters as the model's vector."""
        return np.asarray(self._work.model.vector(self.params))

    def _client(self, x: Any, y: Any, p: Any, first: Any, count: Any, key: Any) -> Any:
        def body(i: Any, p: Any) -> Any:
            return self._step(p, x[first + i], y[first + i], count - i * self._batch, jax.random.fold_in(key, i))

        return lax.fori_loop(0, (count + self._batch - 1) // self._batch, body, p)

    def _scan(self) -> Callable[..., Any]:
        @jax.jit
        def one_round(x: Any, y: Any, p: Any, first: Any, count: Any, key: Any) -> Any:
            def one(total: Any, client: Any) -> Any:
                q = self._client(x, y, p, *client)
                return jax.tree.map(lambda t, v: t + client[1].astype(jnp.float32) * v, total, q), None

            zeros = jax.tree.map(jnp.zeros_like, p)
            total, _ = lax.scan(one, zeros, (first, count, jax.random.split(key, count.shape[0])))
            return jax.tree.map(lambda t: t / count.sum().astype(jnp.float32), total)

        return one_round

    def _vmap(self) -> Callable[..., Any]:
        @jax.jit
        def one_round(x: Any, y: Any, p: Any, first: Any, count: Any, key: Any) -> Any:
            keys = jax.random.split(key, count.shape[0])
            steps = -(-int(self._counts.max()) // self._batch)

            def body(every: Any, i: Any) -> Any:
                return jax.vmap(self._step)(every, x[first + i], y[first + i], count - i * self._batch, keys), None

            every = jax.tree.map(lambda v: jnp.broadcast_to(v, (count.shape[0], *v.shape)), p)
            every = lax.scan(body, every, jnp.arange(steps))[0]
            weights = count.astype(jnp.float32)
            return jax.tree.map(lambda v: jnp.tensordot(weights, v, 1) / weights.sum(), every)

        return one_round

    def _steps(self) -> Callable[..., Any]:
        step = jax.jit(lambda x, y, p, at, left, key: self._step(p, x[at], y[at], left, key))
        add = jax.jit(lambda t, p, n: jax.tree.map(lambda a, b: a + n * b, t, p), donate_argnums=0)
        share = jax.jit(lambda t, n: jax.tree.map(lambda a: a / n, t))

        def one_round(x: Any, y: Any, p: Any, first: Any, count: Any, key: Any) -> Any:
            total = jax.tree.map(jnp.zeros_like, p)
            for client, (at, size) in enumerate(zip(first.tolist(), count.tolist(), strict=True)):
                q = p
                for i in range(-(-size // self._batch)):
                    q = step(x, y, q, at + i, size - i * self._batch, jax.random.fold_in(key, client * 1000 + i))
                total = add(total, q, float(size))
            return share(total, float(count.sum()))

        return one_round


def _forward(work: Workload, convolution: str) -> Callable[..., Any]:
    if work.name in ("W1", "W5"):
        return lambda p, x, key: x @ p["weight"] + p["bias"]
    convolve = _by_patches if convolution == "patches" else _by_lax
    if work.name == "W3":
        return lambda p, x, key: w3_apply(p, x, key, convolve)

    def cnn(p: Any, x: Any, key: Any) -> Any:
        for layer in ("convolution 1", "convolution 2"):
            x = _pool(jax.nn.relu(convolve(x, p[layer]["weight"], "SAME") + p[layer]["bias"]))
        x = jax.nn.relu(x.reshape(x.shape[0], -1) @ p["hidden"]["weight"] + p["hidden"]["bias"])
        return x @ p["output"]["weight"] + p["output"]["bias"]

    return cnn


def _by_lax(x: Any, kernel: Any, padding: str) -> Any:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _by_patches(x: Any, kernel: Any, padding: str) -> Any:
    high, wide, channels, out = kernel.shape
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), (high // 2, high // 2), (wide // 2, wide // 2), (0, 0)))
    rows, columns = x.shape[1] - high + 1, x.shape[2] - wide + 1
    patches = [x[:, i : i + rows, j : j + columns] for i in range(high) for j in range(wide)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(high * wide * channels, out)


def _loss(work: Workload, forward: Callable[..., Any]) -> Callable[..., Any]:
    def loss(p: Any, x: Any, y: Any, there: Any, key: Any) -> Any:
        out = forward(p, x, key)
        if work.name == "W5":
            each = jax.nn.softplus(out[:, 0]) - out[:, 0] * y
        else:
            each = optax.losses.softmax_cross_entropy_with_integer_labels(out, y)
        return (each * there).sum() / jnp.maximum(there.sum(), 1.0)

    return loss
