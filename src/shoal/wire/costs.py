"""What a plan costs over a network, before anybody joins: bytes for each client and round, and what sites need."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from shoal.algorithms import open_round, start
from shoal.errors import MissingExtraError, UnsupportedError
from shoal.key import Key
from shoal.plan import Plan
from shoal.turns import check_deployable
from shoal.wire.header import header_of
from shoal.wire.payloads import pack_tree, payload_schema
from shoal.wire.plans import plan_bytes, rebuilt


@dataclass(frozen=True)
class Costs:
    """What one client is sent in a round and what it sends, metrics and compression aside; and once, the plan.

    `study_file` says why sites need the study file, "" if the plan travels by itself.
    """

    down_bytes: int
    up_bytes: int
    plan_bytes: int
    rounds: int
    study_file: str

    @staticmethod
    def of(plan: Plan) -> Costs:
        """Those of a plan; PlanError, with the reason, if it cannot run over a network.

        >>> from shoal import FedAvg, models
        >>> costs = Costs.of(Plan(FedAvg(models.logistic(13)), rounds=50))
        >>> costs.rounds, costs.study_file, costs.down_bytes > 56, costs.up_bytes > 56
        (50, '', True, True)
        """
        check_deployable(plan.algorithm)
        run = start(plan.algorithm, Key.from_seed(0))
        sent = pack_tree(jax.tree.map(np.asarray, open_round(plan.algorithm, run)))
        described = plan_bytes(plan)
        entries = payload_schema(plan.algorithm).entries
        back = 8 + len(header_of(entries)) + sum(entry.size_bytes for entry in entries)
        return Costs(len(sent), back, len(described), plan.rounds, _why(described))


def _why(described: bytes) -> str:
    """Why a plan cannot be made again from its description; "" if it can."""
    try:
        rebuilt(described)
    except (UnsupportedError, MissingExtraError) as error:
        return str(error)
    return ""
