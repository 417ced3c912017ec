"""What is learned, beside what was published: rows of `python -m benchmarks engine`."""

from __future__ import annotations

import sys
import time

import shoal
from benchmarks.report import Report
from shoal.errors import PackageError

ROUNDS = "2NN IID rounds to 97 %"
SECONDS = "2NN IID seconds to 97 %"
MOST = 300
"""Where the 2NN gives up; far over the bound."""


def run(report: Report, *, only: str, quick: bool) -> None:
    """Adds the rows; none if `quick`, since each is a whole training."""
    if not quick and (only in ROUNDS or only in SECONDS):
        two_nn(report)


def two_nn(report: Report) -> None:
    """McMahan et al. 2017, table 2: 2NN on MNIST, IID, 100 clients, C = 0.1, B = 10, E = 1; 87 rounds to 97 %."""
    try:
        train, test = shoal.mnist()
    except PackageError as error:
        print(f"{ROUNDS}: skipped, since MNIST is not there: {error}", file=sys.stderr)
        return
    model = shoal.models.mlp(784, hidden=(200, 200), classes=10)
    work = shoal.FedAvg(model, batch_size=10, client_optimizer=shoal.sgd(0.1))
    begin = time.perf_counter()
    result = shoal.simulate(
        shoal.Plan(work, rounds=MOST, cohort=10),
        shoal.partition.iid(train, clients=100),
        test=test,
        every=1,
        callbacks=[lambda rows, run: rows[-1]["test accuracy"] >= 0.97],
        progress="off",
    )
    report.add(ROUNDS, len(result.history), "rounds", bound=87)
    report.add(SECONDS, time.perf_counter() - begin, "s")
