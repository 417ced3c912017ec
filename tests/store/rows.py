"""Writes that tests of stores make."""

from __future__ import annotations

from typing import Any

from shoal.store.store import Write


def audit(action: str, **other: Any) -> Write:
    """A row of the audit log that says an action."""
    row = {
        "time": 1.0, "actor": "a", "action": action, "object": "o", "outcome": "done", "detail": "", "said": action,
        "nothing": "",
    }  # fmt: skip
    return Write("audit_add", row | other, wants=1)


def token(hash: str, *, uses: int = 1) -> Write:
    """A new token."""
    return Write("token_add", {"hash": hash, "label": "l", "uses_left": uses, "expires": 9.0, "created": 0.0}, wants=1)


def use(hash: str, *, now: float = 1.0) -> Write:
    """A token is used once."""
    return Write("token_use", {"hash": hash, "now": now}, wants=1)


def run(id: str = "r") -> Write:
    """A new run."""
    row = {
        "id": id, "name": f"the run {id}", "plan": b"{}", "plan_digest": "d", "rules": "{}", "seed": "1", "study": None,
        "status": "waiting", "reason": "", "state": None, "model": b"m0", "created": 1.0,
    }  # fmt: skip
    return Write("run_add", row, wants=1)


def opened(round: int, *, attempt: int = 0, cohort: int = 3) -> Write:
    """A round of the run r is opened."""
    return Write("round_open", {"run": "r", "round": round, "attempt": attempt, "cohort": cohort, "opened": 2.0})


def issued(client: str, round: int, *, attempt: int = 0, position: int = 0) -> Write:
    """A client has a task of the run r, named after them."""
    row = {"round": round, "attempt": attempt, "client": client, "position": position, "issued": 3.0}
    return Write("task_issue", row | {"id": f"r-{round}-{attempt}-{client}", "run": "r"}, wants=1)


def settled(task: str, status: str = "counted", *, size: int = 100) -> Write:
    """A task has a final status."""
    row = {
        "status": status, "reason": "", "scale": 1.0, "manifest": b"m", "bytes": size, "train_s": 0.5, "settled": 4.0,
    }  # fmt: skip
    return Write("task_settle", row | {"id": task}, wants=1)


def secure_step(stage: str, client: str, message: bytes = b"m", *, round: int = 0, attempt: int = 0) -> Write:
    """A message of a secure sum of the run r; of nobody, a stage is closed."""
    row = {"run": "r", "round": round, "attempt": attempt, "stage": stage, "client": client, "message": message}
    return Write("secure_step", row, wants=1)
