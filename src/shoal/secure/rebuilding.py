"""Secrets rebuilt from shares, each one checked, and who is to blame for a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shoal.errors import SecureSumError
from shoal.secure import shamir


@dataclass(frozen=True)
class Wanted:
    """A secret to rebuild: of which client, and who has answered with a share of it.

    For each of those, in one order: its name, the point at which its share lies, and the row of the share.
    """

    dealer: str
    holders: Sequence[str]
    points: Sequence[int]
    rows: Sequence[int]


@dataclass(frozen=True)
class Rebuilt:
    """The secrets, in the order in which they were wanted, and the clients that answered with a wrong share."""

    secrets: tuple[bytes, ...]
    culprits: tuple[str, ...]


Right = Callable[[str, bytes], bool]
"""Whether these bytes are the secret that a client, by its name, has bound itself to."""
Fits = Callable[[str, str, "np.ndarray[Any, Any]"], bool]
"""Whether a share is the one that a dealer, by its name, committed itself to for a holder, by its name."""


def rebuild(
    wanted: Sequence[Wanted], shares: np.ndarray[Any, Any], *, threshold: int, right: Right, fits: Fits
) -> Rebuilt:
    """Every secret, from shares of shape (rows, 9), or SecureSumError naming who is to blame.

    The first `threshold` shares of each secret are tried. Only where they give a wrong one is every share compared
    with what the dealer committed itself to, and only those that fit are tried again: what does not fit is its
    holder's fault, since a holder takes no box with another share in it. Shares that all fit and still give a wrong
    secret are the dealer's fault, and its secret cannot be had.
    """
    secrets = _attempt(wanted, shares, threshold, right)
    wrong = [place for place, secret in enumerate(secrets) if secret is None]
    if not wrong:
        return Rebuilt(tuple(filter(None, secrets)), ())
    fitting = [_fitting(wanted[place], shares, fits) for place in wrong]
    culprits = tuple(
        sorted(
            {holder for place, kept in zip(wrong, fitting, strict=True) for holder in _left_out(wanted[place], kept)}
        )
    )
    for kept in fitting:
        _enough(kept, threshold, culprits)
    again = _attempt(fitting, shares, threshold, right)
    dealers = [kept.dealer for kept, secret in zip(fitting, again, strict=True) if secret is None]
    if dealers:
        raise SecureSumError(
            f"{_names(dealers)} dealt shares of another secret than its own, so its masks cannot be taken off: leave "
            "it out and begin again",
            culprit=dealers[0],
        )
    found = dict(zip(wrong, again, strict=True))
    return Rebuilt(tuple(filter(None, (found.get(i, secret) for i, secret in enumerate(secrets)))), culprits)


def _attempt(
    wanted: Sequence[Wanted], shares: np.ndarray[Any, Any], threshold: int, right: Right
) -> list[bytes | None]:
    """The secrets from the first shares of each, None where those give a wrong one."""
    points = np.array([one.points[:threshold] for one in wanted], np.int64).reshape(-1, threshold)
    chosen = shares[np.array([one.rows[:threshold] for one in wanted], np.int64).reshape(-1, threshold)]
    secrets: list[bytes | None]
    try:
        secrets = [*shamir.rebuild(points, chosen)]
    except SecureSumError:
        secrets = [_alone(points[i : i + 1], chosen[i : i + 1]) for i in range(len(wanted))]
    return [
        secret if secret is not None and right(one.dealer, secret) else None
        for one, secret in zip(wanted, secrets, strict=True)
    ]


def _alone(points: np.ndarray[Any, Any], shares: np.ndarray[Any, Any]) -> bytes | None:
    try:
        return shamir.rebuild(points, shares)[0]
    except SecureSumError:
        return None


def _fitting(one: Wanted, shares: np.ndarray[Any, Any], fits: Fits) -> Wanted:
    kept = [i for i, holder in enumerate(one.holders) if fits(one.dealer, holder, shares[one.rows[i]])]
    return Wanted(
        one.dealer, [one.holders[i] for i in kept], [one.points[i] for i in kept], [one.rows[i] for i in kept]
    )


def _left_out(one: Wanted, kept: Wanted) -> set[str]:
    return set(one.holders) - set(kept.holders)


def _enough(kept: Wanted, threshold: int, culprits: tuple[str, ...]) -> None:
    if len(kept.holders) < threshold:
        raise SecureSumError(
            f"{len(kept.holders)} good shares of a secret of {kept.dealer!r} came and it takes {threshold}: wrong ones "
            f"came from {_names(culprits)}",
            culprit=culprits[0],
        )


def _names(names: Sequence[str], shown: int = 3) -> str:
    listed = ", ".join(repr(name) for name in names[:shown])
    return listed if len(names) <= shown else f"{listed} and {len(names) - shown} more"
