"""Algorithms that send what their clients hold, and keep what is released: what a chain does is then all there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from shoal.aggregation import Aggregation
from shoal.algorithms import Local
from shoal.vector import Layout, Part


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Kept:
    vector: Any


@dataclass(frozen=True)
class Sending:
    """In plain Python: a client's data is the vector that it sends."""

    aggregation: Aggregation
    size: int
    traceable = False

    @property
    def layout(self):
        return Layout((Part("w", (self.size,)),))

    def check(self, data):
        pass

    def init(self, key):
        return Kept(np.zeros(self.size, np.float32))

    def broadcast(self, state, round):
        return None

    def enter(self):
        return None

    def local(self, message, data, client_state, key):
        return Local(np.asarray(data, np.float32), 1, None, {"size": np.ones(2, np.float32)})

    def update(self, state, result, round):
        return Kept(result)


class SendingRows(Sending):
    """In JAX: a client sends its first row of "x" times that of "y", which can be more than float32 holds."""

    traceable = True

    def local(self, message, data, client_state, key):
        rows, _ = data.batch(0, 1)
        return Local(rows["x"][0] * rows["y"][0], data.count)
