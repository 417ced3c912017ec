"""pfl-research on a workload, in its own environment: `python peer_pfl.py WORKLOAD FILE`, by torchrun for several
processes. Prints the seconds of each round as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from typing import Any

import numpy as np
import torch
import torch_modules
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics
from pfl.model.pytorch import PyTorchModel

MARKS: list[float] = []


class Clock(TrainingProcessCallback):
    def on_train_begin(self, *, model: Any) -> Any:
        MARKS.append(time.perf_counter())
        return Metrics()

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
        MARKS.append(time.perf_counter())
        return False, Metrics()


def model(name: str) -> Any:
    """The network with the methods that pfl-research asks for; its metrics are never asked for here."""
    network = torch_modules.module(name)

    def loss(self: Any, x: Any, y: Any, eval: bool = False) -> Any:
        self.train(not eval)
        return torch_modules.loss(name, self(x), y)

    network.loss = types.MethodType(loss, network)
    network.metrics = types.MethodType(lambda self, x, y, eval=True: {}, network)
    return PyTorchModel(network, torch.optim.SGD, torch.optim.SGD(network.parameters(), 1.0))


def main() -> None:
    torch.set_num_threads(1)
    work = np.load(sys.argv[2])
    x, y, offsets, cohorts = torch.from_numpy(work["x"]), torch.from_numpy(work["y"]), work["offsets"], work["cohorts"]
    clients = {
        c: Dataset((x[offsets[c] : offsets[c + 1]], y[offsets[c] : offsets[c + 1]]), user_id=str(c))
        for c in range(len(offsets) - 1)
    }
    schedule = iter(cohorts.ravel().tolist())
    data = FederatedDataset(clients.__getitem__, lambda: next(schedule))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=len(cohorts), evaluation_frequency=10**6, train_cohort_size=cohorts.shape[1],
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=None, postprocessors=[WeightByDatapoints()]),
        model=model(sys.argv[1]),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=float(work["rate"]), local_num_epochs=1, local_batch_size=int(work["batch"])
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Clock()],
        send_metrics_to_platform=False,
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) == 0:
        print(json.dumps(np.diff(MARKS).tolist()))


if __name__ == "__main__":
    main()
