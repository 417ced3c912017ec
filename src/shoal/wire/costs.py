"""What a plan costs over a network, before anybody joins: bytes for each client and round, and what sites need."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from shoal.algorithms import open_round, start
from shoal.cohort import Fixed
from shoal.errors import MissingExtraError, SecureSumError, SettingError, UnsupportedError
from shoal.key import Key
from shoal.plan import Plan
from shoal.secure.contribution import form_of
from shoal.secure.messages import (
    Advertised,
    Advertisement,
    Answer,
    Confirmation,
    Confirmations,
    Inbox,
    Shares,
    Survivors,
    encode,
)
from shoal.secure.messages import Masked as Masking
from shoal.secure.parameters import shape
from shoal.secure.shamir import SHARE_BYTES
from shoal.secure.terms import COMPLETE, CORRUPT
from shoal.turns import check_deployable, notes_of
from shoal.wire.header import header_of
from shoal.wire.payloads import pack_tree, payload_schema
from shoal.wire.plans import plan_bytes, rebuilt

NAME = "a name of 16 chr"
"""Clients are called by something of this length where a message's length depends on it."""


@dataclass(frozen=True)
class Masked:
    """What a secure sum of so many `clients` adds: bytes of keys, shares and signatures to and from each client.

    It shows itself from `threshold` contributions on, each of which is integers of `bits`.
    """

    threshold: int
    clients: int
    bits: int
    down_bytes: int
    up_bytes: int


@dataclass(frozen=True)
class Costs:
    """What one client is sent in a round and what it sends, compression aside; and once, the plan.

    Metrics are not in it, unless they are masked. `study_file` says why sites need the study file, "" if the plan
    travels by itself. A secure sum is that of a fixed cohort, or else of the fewest clients that it can have.
    """

    down_bytes: int
    up_bytes: int
    plan_bytes: int
    rounds: int
    study_file: str
    masked: Masked | None = None

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
        masked, back = None, _back(plan)
        threshold = plan.algorithm.aggregation.threshold
        if threshold:
            clients = max(plan.sampler.clients if isinstance(plan.sampler, Fixed) else 0, threshold)
            masked, back = _masked(plan, threshold, clients)
        return Costs(len(sent), back, len(described), plan.rounds, _why(described), masked)


def _back(plan: Plan) -> int:
    """The bytes of a contribution's container, without its notes."""
    entries = payload_schema(plan.algorithm).entries
    return 8 + len(header_of(entries)) + sum(entry.size_bytes for entry in entries)


def _masked(plan: Plan, threshold: int, clients: int) -> tuple[Masked, int]:
    """What a secure sum adds, and the bytes of a masked contribution."""
    algorithm = plan.algorithm
    form = form_of(algorithm.aggregation, algorithm.layout, notes=notes_of(algorithm), clients=clients)
    try:
        around = shape(clients, threshold=threshold, corrupt=CORRUPT)
    except SecureSumError as error:
        raise SettingError(str(error)) from error
    holders = around.neighbours + (clients <= COMPLETE)
    key, signature, share = bytes(32), bytes(64), bytes(SHARE_BYTES)
    boxes, commitments, some = (bytes(2 * SHARE_BYTES + 16),) * holders, (key,) * holders, bytes((clients + 7) // 8)
    keys = Advertisement(NAME, key, key, signature)
    up = (keys, Shares(NAME, key, boxes, commitments, signature), Masking(NAME, key, signature),
          Confirmation(NAME, signature), Answer(NAME, (share,) * holders, signature))  # fmt: skip
    down = (Advertised((keys,) * clients), Inbox(some, boxes, commitments), Survivors(some),
            Confirmations(some, (signature,) * around.threshold))  # fmt: skip
    sizes = [sum(len(encode(message)) for message in messages) for messages in (down, up)]
    return Masked(threshold, clients, form.bits, *sizes), form.size * form.bits // 8 + 8 * form.slots


def _why(described: bytes) -> str:
    """Why a plan cannot be made again from its description; "" if it can."""
    try:
        rebuilt(described)
    except (UnsupportedError, MissingExtraError) as error:
        return str(error)
    return ""
