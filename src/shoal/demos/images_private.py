"""Handwritten digits learned with an epsilon for each client: what several epsilons cost beside none.

Everything here is public Shoal: copy the file and change it. `shoal demo images --epsilon 1 --epsilon 8` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

import shoal
from shoal.demos.images import LAST

DELTA = 1e-6
EPSILONS = (1.0, 2.0, 8.0)


@dataclass(frozen=True)
class Private:
    """How many clients train: each is in a round with probability `rate`, and is clipped to `norm`.

    The model is a softmax regression: each of its weights gets noise, so a larger one learns less of the same epsilon.
    """

    clients: int
    rate: float
    rounds: int
    norm: float
    learning_rate: float
    steps: int

    @property
    def cohort(self) -> int:
        """How many clients a round has, on average."""
        return round(self.clients * self.rate)

    def plan(self, features: int, epsilon: float | None) -> shoal.Plan:
        """Federated averaging of Poisson samples, with the least noise that spends epsilon; None: without noise."""
        who = shoal.Poisson(self.rate)
        if epsilon is None:
            chain = shoal.Clip(self.norm) >> shoal.PlainSum() >> shoal.Mean()
        else:
            chain = shoal.private_mean(
                epsilon=epsilon, delta=DELTA, norm=self.norm, rounds=self.rounds, clients=self.cohort, cohort=who
            )
        work = shoal.FedAvg(
            shoal.models.mlp(features, hidden=(), classes=10), steps=self.steps, batch_size="all",
            client_optimizer=shoal.sgd(self.learning_rate), aggregation=chain,
        )  # fmt: skip
        return shoal.Plan(work, rounds=self.rounds, cohort=who)


DIGITS = Private(clients=1438, rate=0.3, rounds=30, norm=4.0, learning_rate=3.0, steps=1)
"""A client for each image: nobody wrote more than one digit."""
MNIST = Private(clients=2000, rate=0.1, rounds=40, norm=2.0, learning_rate=1.0, steps=5)


@dataclass(frozen=True)
class Line:
    """One epsilon, None for none: its noise multiplier, and the accuracy, the mean of the last rounds."""

    epsilon: float | None
    accuracy: float
    spent: shoal.privacy.Spent | None = None

    @property
    def multiplier(self) -> float:
        """The noise's deviation over what one client moves the sum by."""
        return 0.0 if self.spent is None else self.spent.noise_multiplier or 0.0


@dataclass(frozen=True)
class Utility:
    """The table: a line for each epsilon, the last of them without noise."""

    data: str
    examples: tuple[int, int]
    setting: Private
    lines: tuple[Line, ...]


def study(
    train: shoal.Population,
    test: shoal.Population,
    *,
    data: str,
    setting: Private,
    epsilons: Sequence[float] = EPSILONS,
    seed: int = 0,
    tell: Callable[[], None] = lambda: None,
) -> Utility:
    """The test's accuracy for each epsilon and for none; `tell` is called after each round."""
    features = int(np.prod(train.columns["x"].shape[1:]))
    setting = replace(setting, clients=min(setting.clients, int(train.offsets[-1])))
    dealt = shoal.partition.iid(train, clients=setting.clients, seed=seed)

    def line(epsilon: float | None) -> Line:
        plan = setting.plan(features, epsilon)
        result = shoal.simulate(
            plan, dealt, test=test, every=1, seed=seed, progress="off", callbacks=[lambda rows, run: tell()]
        )  # fmt: skip
        accuracy = fmean(result.history.column("test accuracy")[-LAST:])
        return Line(epsilon, accuracy, None if epsilon is None else shoal.privacy.spent(plan, delta=DELTA))

    lines = tuple(line(epsilon) for epsilon in (*sorted(epsilons), None))
    return Utility(data, (int(train.offsets[-1]), int(test.offsets[-1])), setting, lines)


if __name__ == "__main__":
    for line in study(*shoal.digits(), data="digits", setting=DIGITS).lines:
        print(f"epsilon {line.epsilon}: noise {line.multiplier:.4g}, accuracy {line.accuracy:.3f}")
