"""An algorithm of one's own: the median age of all patients, by bisection. Hospitals send only two counts a round.

The server guesses an age, every client says how many of its patients are younger, and the interval is halved.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import shoal
from shoal.algorithms import Local
from shoal.vector import Layout, Part


@dataclass(frozen=True)
class Quantile:
    """The value below which a `share` of all rows of a feature lies, if it lies between `low` and `high`."""

    feature: int
    share: float
    low: float
    high: float
    aggregation: Any = field(default_factory=shoal.total)
    traceable = False

    @property
    def layout(self):
        return Layout((Part("below", ()), Part("rows", ())))

    def check(self, data):
        data.rows("x")

    def init(self, key):
        return {"low": np.float64(self.low), "high": np.float64(self.high)}

    def broadcast(self, state, round):
        return (state["low"] + state["high"]) / 2

    def enter(self):
        return None

    def local(self, message, data, client_state, key):
        values = data.rows("x")[:, self.feature]
        return Local(np.array([(values < message).sum(), len(values)], np.float32), data.count)

    def update(self, state, result, round):
        below, rows = result
        middle = self.broadcast(state, round)
        return state | ({"low": middle} if below < self.share * rows else {"high": middle})


if __name__ == "__main__":
    hospitals = shoal.hospitals()
    plan = shoal.Plan(Quantile(feature=0, share=0.5, low=0.0, high=120.0), rounds=20)
    found = shoal.simulate(plan, hospitals).state
    print(f"median age, in 20 rounds of two counts: {found['high']:.2f}")
    print(f"median age, with all rows in one place: {np.median(hospitals.columns['x'][:, 0]):.2f}")
