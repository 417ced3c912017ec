"""What people bring from torch: modules, with a loss beside them."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import learning
from shoal.errors import SettingError

torch = pytest.importorskip(
    "torch", reason="needs torch, which the test command leaves out: run  make torch  and test again"
)


def test_a_process_trains_a_torch_module_as_a_simulation_does(random):
    clients = {name: (random.normal(size=(9, 3)).astype(np.float32), random.integers(0, 2, 9)) for name in "ab"}
    population = shoal.Population.from_clients(clients)
    module = torch.nn.Linear(3, 2)
    process = learning.build_weighted_fed_avg(lambda: module, shoal.sgd(0.1), batch_size=4, loss="cross_entropy")
    state = process.next(process.initialize(), population).state
    plan = shoal.Plan(shoal.FedAvg(process.model, client_optimizer=shoal.sgd(0.1), batch_size=4), rounds=1)
    assert np.allclose(state.global_model_weights, shoal.simulate(plan, population).vector, atol=1e-6)


def test_a_module_needs_a_loss():
    with pytest.raises(SettingError, match="no loss of its own"):
        learning.build_fed_eval(lambda: torch.nn.Linear(3, 2))
