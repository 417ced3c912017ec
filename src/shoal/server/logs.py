"""The server's log: one JSON object a line, with ids of requests, runs, rounds, tasks and clients, and nothing else.

Nothing personal and no value is in it: no names, no addresses, no message of an error that is not Shoal's own.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from typing import IO, Any

from shoal.errors import ShoalError

IDS = ("request", "run", "round", "attempt", "task", "client", "actor")
DETAILS = ("route", "status", "code", "seconds", "bytes", "clients", "reason", "verdict", "outcome")

log = logging.getLogger("shoal.server")
_HTTP = logging.getLogger("uvicorn.error")  # requests that are no HTTP, answers that were cut off


def event(level: int, text: str, **said: Any) -> None:
    """Writes a line. What is said is by the names in IDS and DETAILS; others are not written.

    >>> event(logging.INFO, "round closed", run="r-1", round=3, clients=12)
    """
    if log.isEnabledFor(level):
        log.log(level, text, extra={"said": said})


def failure(text: str, error: BaseException, **said: Any) -> None:
    """Writes a line about a defect: the error's class and where it was, not what it says unless it is Shoal's own."""
    frames = traceback.extract_tb(error.__traceback__)
    trace = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    log.error(text, extra={"said": said, "trace": trace, "error": _told(error)})


def to_stream(stream: IO[str] | None = None, *, level: int = logging.INFO) -> logging.Handler:
    """Sends the log to a stream, stderr by default; the handler, for whoever wants to take it away again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Lines())
    for logger, lowest in ((log, level), (_HTTP, max(level, logging.WARNING))):
        logger.addHandler(handler)
        logger.setLevel(lowest)
        logger.propagate = False
    return handler


class Lines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = getattr(record, "said", {})
        line: dict[str, Any] = {
            "time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage(),
        }  # fmt: skip
        line |= {name: said[name] for name in (*IDS, *DETAILS) if said.get(name) is not None}
        for name in ("error", "trace"):
            if hasattr(record, name):
                line[name] = getattr(record, name)
        return json.dumps(line, ensure_ascii=False)


def _told(error: BaseException) -> str:
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, ShoalError) else name
