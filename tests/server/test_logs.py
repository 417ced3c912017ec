"""The server's log: lines of JSON that say nothing but ids, numbers and Shoal's own sentences."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from shoal.errors import StoreError
from shoal.server import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    written = io.StringIO()
    handler = logs.to_stream(written, level=logging.INFO)
    yield written
    for logger in (logs.log, logging.getLogger("uvicorn.error")):
        logger.removeHandler(handler)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_ids_that_were_given(stream: io.StringIO) -> None:
    logs.event(logging.INFO, "round closed", run="r1", round=3, clients=12, code=None)
    (line,) = lines(stream)
    assert isinstance(line.pop("time"), float)
    assert line == {"level": "info", "event": "round closed", "run": "r1", "round": 3, "clients": 12}


def test_nothing_is_written_that_has_no_place(stream: io.StringIO) -> None:
    logs.event(logging.INFO, "x", name="St. Mary's", address="192.0.2.1", values=[1.0])
    assert set(lines(stream)[0]) == {"time", "level", "event"}


def test_what_is_not_of_interest_is_not_written(stream: io.StringIO) -> None:
    logs.event(logging.DEBUG, "request")
    assert stream.getvalue() == ""


def test_a_defect_is_logged_with_its_place_and_without_its_words(stream: io.StringIO) -> None:
    try:
        int("a value from somebody's data")
    except ValueError as error:
        logs.failure("a request failed", error, request="1")
    (line,) = lines(stream)
    assert line["error"] == "ValueError"
    assert "somebody" not in stream.getvalue()
    assert "test_logs.py" in str(line["trace"])


def test_what_is_no_http_is_logged_in_the_same_form(stream: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert lines(stream)[0]["event"] == "Invalid HTTP request received."


def test_shoals_own_sentences_are_logged(stream: io.StringIO) -> None:
    logs.failure("not done", StoreError("its disk is full"))
    assert lines(stream)[0]["error"] == "StoreError: its disk is full"
