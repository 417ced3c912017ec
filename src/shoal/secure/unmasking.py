"""What is left of the masks in a sum, taken off: those of its clients alone, and those they shared with the dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from shoal.secure import keys
from shoal.secure.group import Group
from shoal.secure.masks import Job
from shoal.secure.messages import Shares
from shoal.secure.rebuilding import Rebuilt, Wanted, rebuild


def needed(group: Group, shared: Collection[int], survivors: Collection[int]) -> list[int]:
    """Whose secret it takes: each survivor's, and that of each client that shared a mask with one and was then dropped.

    Masks between two of the dropped are in no contribution.
    """
    return [client for client in sorted(shared) if client in survivors or group.neighbours(client, survivors)]


def rebuilt(
    group: Group,
    shared: Mapping[int, Shares],
    survivors: Collection[int],
    *,
    answers: Mapping[int, np.ndarray[Any, Any]],
) -> Rebuilt:
    """The secrets of those needed: seeds of survivors, mask keys of the dropped.

    An answer has the holder's shares, of shape (dealers, 9), of those that have shared and that it holds for, in order.
    """
    clients = needed(group, shared.keys(), survivors)

    def right(dealer: str, secret: bytes) -> bool:
        number = group.number[dealer]
        if number in survivors:
            return keys.seed_digest(secret, group.context, dealer) == shared[number].seed
        return keys.public_bytes(keys.private_key(secret)) == group.advertisements[number].mask_key

    def fits(dealer: str, holder: str, share: np.ndarray[Any, Any]) -> bool:
        number = group.number[dealer]
        both = shared[number].commitments[group.points[number][group.number[holder]] - 1]
        kind, part = ("seed", both[:16]) if number in survivors else ("key", both[16:])
        return keys.commitment(share.astype("<u4").tobytes(), group.context, dealer, holder, of=kind) == part

    wanted = _wanted(group, clients, shared.keys(), answers)
    rows = np.concatenate([answers[holder] for holder in sorted(answers)])
    return rebuild(wanted, rows, threshold=group.shape.threshold, right=right, fits=fits)


def _wanted(
    group: Group, clients: Sequence[int], shared: Collection[int], answers: Mapping[int, np.ndarray[Any, Any]]
) -> list[Wanted]:
    """The secrets of these clients, with the rows of their shares in the answers, one after the other."""
    rows: dict[int, dict[int, int]] = {}
    first = 0
    for holder in sorted(answers):
        dealers = group.held(holder, shared)
        rows[holder] = dict(zip(dealers, range(first, first + len(dealers)), strict=True))
        first += len(dealers)
    return [_of(group, dealer, rows) for dealer in clients]


def _of(group: Group, dealer: int, rows: Mapping[int, Mapping[int, int]]) -> Wanted:
    holders, points = group.held(dealer, rows), group.points[dealer]
    return Wanted(
        group.names[dealer],
        holders=[group.names[holder] for holder in holders],
        points=[points[holder] for holder in holders],
        rows=[rows[holder][dealer] for holder in holders],
    )


def jobs(group: Group, secrets: Mapping[int, bytes], survivors: Collection[int]) -> list[Job]:
    """What takes the masks off a sum of survivors, from the secrets of all who are needed.

    Of two clients that share a mask, the first in the order of names has added it and the other has subtracted it.
    """
    taken: list[Job] = []
    public = {}
    for client, secret in secrets.items():
        name = group.names[client]
        if client in survivors:
            taken.append((keys.self_key(secret, group.context, name), -1))
            continue
        private = keys.private_key(secret)
        for other in group.neighbours(client, survivors):
            if other not in public:
                public[other] = keys.public_key(group.advertisements[other].mask_key)
            agreed = keys.agree(private, public[other], owner=group.names[other])
            key = keys.pair_key(agreed, group.context, name, group.names[other])
            taken.append((key, -1 if other < client else 1))
    return taken
