"""Which status an error has, and what is said of it. What nobody foresaw says nothing but its number in the log."""

from __future__ import annotations

import errno
import math

from shoal.errors import ConflictError, PlanError, SecureSumError, ServerError, StoreError, WireError
from shoal.wire.messages import Problem

STATUS: dict[str, int] = {
    "malformed": 400, "wrong-digest": 400,
    "session-unknown": 401, "bad-mac": 401, "replayed": 401, "operator-unknown": 401,
    "client-unknown": 403, "token": 403, "bad-signature": 403, "not-yours": 403, "refused": 403, "role": 403,
    "not-found": 404, "task-unknown": 404, "run-unknown": 404, "blob-unknown": 404, "client-not-found": 404,
    "method": 405, "too-slow": 408,
    "secure-over": 410,
    "superseded": 409, "conflict": 409, "name-taken": 409, "not-offered": 409, "incomplete": 409,
    "length-required": 411, "too-large": 413, "media-type": 415, "range": 416, "rejected": 422, "plan": 422,
    "version": 426, "too-many": 429,
    "internal": 500, "busy": 503, "draining": 503, "store": 503, "disk-full": 507,
}  # fmt: skip
"""The HTTP status of each code that a `Problem` can have. A ServerError with another code is a 400."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_COME_AGAIN = {"busy": 2.0, "draining": 5.0, "store": 5.0, "disk-full": 60.0, "too-many": 1.0}


def problem_of(error: BaseException) -> tuple[int, Problem]:
    """The status and the words for an error that ended a request."""
    code, message = _words(error)
    wait_s = getattr(error, "retry_after_s", None)
    if wait_s is None:
        wait_s = _COME_AGAIN.get(code)
    return STATUS.get(code, 400), Problem(code=code, message=message[:2000], retry_after_s=wait_s)


def foreseen(error: BaseException) -> bool:
    """Whether an error has words for the peer: its own, not those of a defect here."""
    return _words(error)[0] != "internal"


def retry_after(problem: Problem) -> bytes | None:
    """The header `Retry-After` for a problem: whole seconds, at least one."""
    if problem.retry_after_s is None:
        return None
    return str(max(1, math.ceil(problem.retry_after_s))).encode()


def _words(error: BaseException) -> tuple[str, str]:
    if isinstance(error, ServerError):
        return error.code, str(error)
    if isinstance(error, WireError | SecureSumError):
        return "rejected", str(error)
    if isinstance(error, ConflictError):
        return "conflict", str(error)
    if isinstance(error, StoreError | OSError) and _disk_full(error):
        return "disk-full", "the server's disk is full: nothing was lost, and nothing new is taken until there is space"
    if isinstance(error, StoreError):
        return "store", "the server's store could not make this durable: nothing of it was done"
    if isinstance(error, PlanError):
        return "plan", str(error)
    if isinstance(error, TimeoutError):
        return "too-slow", "the rest of the request did not come in time"
    return "internal", "the server failed at this request: its log says why"


def _disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if "disk is full" in str(error):  # SQLite has no number for it
            return True
        error = error.__cause__ or error.__context__
    return False
