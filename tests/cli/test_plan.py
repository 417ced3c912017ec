"""`shoal plan` says what a client reveals, how far it can move a sum and beside how much noise, and what travels."""

from __future__ import annotations

import json

import pytest

STUDY = """\
import shoal

chain = {chain}
plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), aggregation=chain), rounds=30)
"""


@pytest.mark.parametrize(
    ("chain", "seen", "back"),
    [("shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(4.0, 5)", "value of each client by itself", "back"),
     ("shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> shoal.DiscreteGaussian(4.0, 5)",
      "value as sums of 3 clients or more, or nothing", "back, masked"),
     ("shoal.mean()", "value, weight and metrics of each client by itself", "back, and its metrics")],
)  # fmt: skip
def test_the_command_shows_what_is_derived_who_sees_what_and_what_travels(shoal_command, tmp_path, chain, seen, back):
    (tmp_path / "study.py").write_text(STUDY.format(chain=chain))
    said = shoal_command("plan", "study.py").stdout.splitlines()
    assert f"server sees {seen}" in said
    assert f"others see  the model of each round, {'without' if 'mean' in chain else 'with'} noise" in said
    (line,) = (line for line in said if line.startswith("network"))
    assert line.endswith(f" {back}")
    told = json.loads(shoal_command("plan", "study.py", "--json").stdout)["derivation"]
    if "mean" in chain:
        assert told is None
    else:
        assert "derived     Clip: 1, what is longer is scaled down to it" in said
        assert told["noise"] == pytest.approx(4 * told["sensitivity"])
