"""Who did what, in rows that are only ever added, each holding the hash of the one before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoal.errors import StoreError
from shoal.store.store import Store, Write

NOTHING = "0" * 64
"""What the first row holds in place of a hash before it."""

_SAID = ("time", "actor", "action", "object", "outcome", "detail")
_PAGE = 1000


@dataclass(frozen=True)
class Trail:
    """An audit log that was read to its end: how many rows, and the last one's hash.

    Whoever keeps the hash elsewhere can tell later that no row up to there was changed, added or taken away.
    """

    rows: int
    hash: str


def audit_writes(
    actor: str, action: str, item: str, detail: str = "", *, time: float, outcome: str = "done"
) -> list[Write]:
    """What adds a row to the audit log, in the transaction that does what the row tells of.

    `actor` is "operator", "server" or a client; `item` the id of what it was done to; `detail` words and numbers that
    are nobody's data. The row's hash is made where it is written, behind all that were written before.

    >>> from shoal.store.store import open_store
    >>> store = open_store("memory:")
    >>> store.write(*audit_writes("operator", "pause", "run-1", time=0.0)).result()
    >>> verify(store).rows
    1
    >>> store.close()
    """
    row: dict[str, Any] = dict(zip(_SAID, (float(time), actor, action, item, outcome, detail), strict=True))
    return [Write("audit_add", {**row, "said": _said(row), "nothing": NOTHING}, wants=1)]


def verify(store: Store) -> Trail:
    """Reads the whole audit log; StoreError, with the row's number, where a row was changed, moved or taken away."""
    after, rows, before = 0, 0, NOTHING
    while page := store.read("audit", after=after, limit=_PAGE):
        for row in page:
            if row["previous"] != before or row["hash"] != _hash(before, row):
                raise StoreError(
                    f"the audit log does not hold together at row {row['seq']}: that row, or one before it, was "
                    "changed, moved or taken away after it was written"
                )
            before = row["hash"]
        after, rows = page[-1]["seq"], rows + len(page)
    return Trail(rows, before)


def _hash(before: str, row: Mapping[str, Any]) -> str:
    return hashlib.sha256((before + _said(row)).encode()).hexdigest()


def _said(row: Mapping[str, Any]) -> str:
    return json.dumps([row[name] for name in _SAID], ensure_ascii=True, separators=(",", ":"))
