"""How many of 200 phones used a feature each day: a sum with noise, and what the noise costs.

Each phone holds one row of seven zeros and ones. It is clipped, put on a grid, given its share of the noise, and added
up; the server would see only the sum. The noise and the secure sum are simulated here.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import shoal
from shoal.algorithms import Local
from shoal.vector import Layout, Part

DAYS, PHONES = 7, 200


@dataclass(frozen=True)
class Used:
    """Asks every client once for its row of `x`, and adds the rows up."""

    aggregation: Any = field(default_factory=shoal.total)
    layout = Layout((Part("days", (DAYS,)),))
    traceable = False

    def check(self, data):
        data.rows("x")

    def init(self, key):
        return {"days": np.zeros(DAYS, np.float32)}

    def broadcast(self, state, round):
        return None

    def enter(self):
        return None

    def local(self, message, data, client_state, key):
        return Local(data.rows("x")[0])

    def update(self, state, result, round):
        return {"days": result}


if __name__ == "__main__":
    x = np.random.default_rng(0).random((PHONES, DAYS)) < np.linspace(0.2, 0.8, DAYS)
    phones = shoal.Population.from_arrays(x.astype(np.float32), groups=np.arange(PHONES))
    shared = shoal.Clip(DAYS**0.5) >> shoal.Quantize(0.01) >> shoal.NoiseShare(1.0, at_least=PHONES)
    private = Used(shared >> shoal.SecureSum(threshold=PHONES) >> shoal.Over(clients=1))

    print(shoal.Plan(private, rounds=1), end="\n\n")
    for name, question in (("exact", Used()), ("private", private)):
        counts = shoal.simulate(shoal.Plan(question, rounds=1), phones).state["days"]
        print(f"{name:<8}", *(f"{count:6.1f}" for count in counts))
