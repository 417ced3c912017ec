"""Contributions that are private by themselves are the same in every runtime, and none of them is missing."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import Clip, LocalGaussian, Over, PlainSum, RandomizedResponse


@pytest.mark.parametrize("step", [Clip(1.0) >> LocalGaussian(20.0, 1e-3), RandomizedResponse(4.0, ones=2)], ids=str)
def test_runtimes_agree_and_a_client_with_unusable_data_is_nowhere_told_from_others(step):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2)).astype(np.float32)
    x[3] = np.nan
    population = shoal.Population.from_arrays(x, (x[:, 0] > 0).astype(np.int32), groups=np.repeat(np.arange(6), 4))
    work = shoal.FedAvg(shoal.models.logistic(2), aggregation=step >> PlainSum() >> Over(clients=6))
    plan = shoal.Plan(work, rounds=2)
    compiled, local = (shoal.simulate(plan, population, seed=2, runtime=runtime) for runtime in ("compiled", "local"))
    np.testing.assert_allclose(compiled.vector, local.vector, rtol=1e-5, atol=1e-6)
    for result in (compiled, local):
        assert [(row["clients"], row["rejected"], "loss" in row) for row in result.history] == [(6, 0, False)] * 2
