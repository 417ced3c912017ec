"""A run that is stopped and goes on from its checkpoint ends in the same model, to the bit."""

import tempfile
from pathlib import Path

import numpy as np

import shoal

ROUNDS = 40


class StoppedError(Exception):
    """What stops the first run."""


def stop_halfway(state):
    """Measured every 10 rounds; the second time, it is as if somebody pulled the plug."""
    stop_halfway.calls += 1
    if stop_halfway.calls == 2:
        raise StoppedError
    return {}


stop_halfway.calls = 0

if __name__ == "__main__":
    train = shoal.hospitals()
    train = shoal.standardizer(train).apply(train)
    work = shoal.FedAvg(shoal.models.logistic(features=13), steps=5, client_optimizer=shoal.sgd(0.1))
    plan = shoal.Plan(work, rounds=ROUNDS, cohort=2)
    whole = shoal.simulate(plan, train, seed=7)

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.shoal"
        try:
            shoal.simulate(plan, train, seed=7, test=stop_halfway, every=10, checkpoint=file, save_every_s=0.0)
        except StoppedError:
            print("stopped at round 20, before it was saved; the file holds an earlier round")
        resumed = shoal.simulate(plan, train, seed=7, checkpoint=file)

    print(f"rounds in the history: {len(resumed.history)}")
    print(f"the same model, to the bit: {bool(np.array_equal(resumed.vector, whole.vector))}")
