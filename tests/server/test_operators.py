"""The operators' API: who may do what, what is answered, and that its description is of it."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3

from shoal.errors import ServerError, SettingError
from shoal.rounds.rules import Rules
from shoal.server.audit import audit_writes
from shoal.server.openapi import description
from shoal.server.operators import Operators
from shoal.server.routes import ROUTES
from tests.server.conftest import Server


def ask(
    server: Server, method: str, path: str, body: Any = None, *, role: str = "operator", **headers: str
) -> urllib3.BaseHTTPResponse:
    said = {"authorization": f"Bearer {server.tokens[role]}", **headers}
    return server.caller().http.request(
        method, server.url + path, body=None if body is None else json.dumps(body), headers=said
    )


def got(answer: urllib3.BaseHTTPResponse, status: int = 200) -> Any:
    assert answer.status == status, answer.data
    return json.loads(answer.data)


def code(answer: urllib3.BaseHTTPResponse) -> str:
    return f"{answer.status} {json.loads(answer.data)['code']}"


def test_runs_are_listed_and_shown_by_id_and_by_name(server: Server) -> None:
    assert {run["name"] for run in got(ask(server, "GET", "/v1/runs"))} >= {"study", "other"}
    assert got(ask(server, "GET", "/v1/runs/r1")) == got(ask(server, "GET", "/v1/runs/study"))
    assert code(ask(server, "GET", "/v1/runs/nobody")) == "404 run-unknown"


def test_a_run_is_submitted_with_rules_and_a_seed(server: Server) -> None:
    new = {"plan": "{}", "name": "new one", "rules": {"at_least": 3}, "seed": 7}
    assert got(ask(server, "POST", "/v1/runs", new), 201)["name"] == "new one"
    assert (server.here.rules, server.here.seed) == (Rules(at_least=3), 7)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"plan": "{}"}, "400 malformed"),
        ({"plan": "{}", "name": ""}, "400 malformed"),
        ({"plan": "{}", "name": "x", "sead": 1}, "400 malformed"),
        ({"plan": "{}", "name": "x", "rules": {"deadline": 1}}, "422 plan"),
        ({"plan": "{}", "name": "x", "rules": {"at_least": 0}}, "422 plan"),
        ({"plan": "[]", "name": "x"}, "422 plan"),
        ([], "400 malformed"),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_a_sentence(server: Server, wrong: Any, said: str) -> None:
    answer = ask(server, "POST", "/v1/runs", wrong)
    assert code(answer) == said
    assert len(json.loads(answer.data)["message"]) > 10


@pytest.mark.parametrize(("what", "status"), [("pause", "paused"), ("resume", "resume"), ("cancel", "cancel")])
def test_a_run_is_commanded_by_id_or_name(server: Server, what: str, status: str) -> None:
    assert got(ask(server, "POST", f"/v1/runs/other:{what}"))["status"] == status
    assert got(ask(server, "GET", "/v1/runs/r2"))["status"] == status


def test_clients_are_listed_and_revoked(server: Server) -> None:
    client = server.client()
    assert client.client in {each["id"] for each in got(ask(server, "GET", "/v1/clients"))}
    got(ask(server, "POST", f"/v1/clients/{client.client}:revoke"))
    assert code(ask(server, "POST", f"/v1/clients/{client.client}:revoke")) == "404 client-not-found"


def test_a_token_is_told_once(server: Server) -> None:
    made = got(ask(server, "POST", "/v1/tokens", {"label": "hospitals", "uses": 4}), 201)
    assert made["token"] == "token of hospitals for 4"
    assert made["expires"] > time.time()
    assert got(ask(server, "GET", "/v1/tokens")) == []


def test_a_model_is_downloaded_as_a_file_and_in_ranges(server: Server) -> None:
    server.here.model_file = server.folder / "model.safetensors"
    server.here.model_file.write_bytes(bytes(range(256)) * 1000)
    answer = ask(server, "GET", "/v1/models/study")
    assert answer.data == server.here.model_file.read_bytes()
    assert "study.safetensors" in answer.headers["content-disposition"]
    part = ask(server, "GET", "/v1/models/study", range="bytes=1-2")
    assert (part.status, part.data, part.headers["etag"]) == (206, b"\x01\x02", answer.headers["etag"])
    assert "model" in {row["action"] for row in server.here.store.read("audit", after=0, limit=1000)}


def test_events_are_the_audit_log_from_where_one_stopped(server: Server) -> None:
    store = server.here.store
    store.write(*audit_writes("server", "before", "r1", time=1.0)).result()
    last = store.read("audit_last")[0]["seq"]
    answer = server.caller().http.request(
        "GET", server.url + "/v1/events", preload_content=False,
        headers={"authorization": f"Bearer {server.tokens['viewer']}", "last-event-id": str(last - 1)},
    )  # fmt: skip
    assert answer.headers["content-type"] == "text/event-stream"
    lines = (line for piece in answer.stream(1) for line in [piece.decode()])
    assert _event(lines) == (last, "before")
    store.write(*audit_writes("server", "after", "r1", time=2.0)).result()
    assert _event(lines) == (last + 1, "after")
    answer.close()


def _event(letters: Any) -> tuple[int, str]:
    text = ""
    while not text.endswith("\n\n"):
        text += next(letters)
    said = dict(line.split(": ", 1) for line in text.strip().split("\n"))
    assert json.loads(said["data"])["action"] == said["event"]
    return int(said["id"]), said["event"]


def test_a_viewer_looks_and_changes_nothing(server: Server) -> None:
    for route in ROUTES:
        path = route.path.replace("{run}", "r1").replace("{client}", "nobody")
        if route.role == "operator":
            assert code(ask(server, route.method, path, {}, role="viewer")) == "403 role", route.name
        elif route.name not in ("events", "model"):
            assert ask(server, route.method, path, role="viewer").status == 200, route.name


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer guess", "Basic {token}", "{token}", "Bearer {token}x"])
def test_without_a_token_nothing_is_said(server: Server, authorization: str) -> None:
    said = authorization.replace("{token}", server.tokens["operator"])
    for route in ROUTES:
        answer = server.caller().http.request(
            route.method, server.url + route.path.replace("{run}", "r1"), headers={"authorization": said}
        )
        assert code(answer) == "401 operator-unknown", route.name


def test_the_first_start_makes_tokens_that_only_this_user_reads(tmp_path: Path) -> None:
    operators = Operators.of(tmp_path)
    token = (tmp_path / "operator.token").read_text().strip()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert operators.role(f"Bearer {token}") == "operator"
    assert token not in (tmp_path / "operators.json").read_text()
    for path in tmp_path.glob("*.token"):
        path.unlink()
    assert Operators.of(tmp_path).role(f"bearer {token}") == "operator"
    (tmp_path / "operators.json").unlink()
    with pytest.raises(ServerError):
        Operators.of(tmp_path).role(f"Bearer {token}")


def test_damaged_hashes_are_an_error_and_not_a_new_start(tmp_path: Path) -> None:
    Operators.of(tmp_path)
    (tmp_path / "operators.json").write_text("{}")
    with pytest.raises(SettingError, match="is damaged"):
        Operators.of(tmp_path)


def test_openapi_describes_exactly_what_is_served(server: Server) -> None:
    told = got(ask(server, "GET", "/v1/openapi.json"))
    assert told == json.loads(json.dumps(description("hearts")))
    described = {(method.upper(), path) for path, each in told["paths"].items() for method in each}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert set(server.app.operations.names) == {route.name for route in ROUTES}


def test_openapi_is_well_formed() -> None:
    """The rules of OpenAPI 3.1 that this document touches, said again."""
    told = description("hearts")
    operations = [each for path in told["paths"].values() for each in path.values()]
    assert told["openapi"].startswith("3.1")
    assert len({each["operationId"] for each in operations}) == len(operations)
    for path, each in ((path, op) for path, methods in told["paths"].items() for op in methods.values()):
        named = {part[1:].partition("}")[0] for part in path.split("/") if part.startswith("{")}
        assert {parameter["name"] for parameter in each.get("parameters", [])} == named
        assert all(parameter["required"] and parameter["in"] == "path" for parameter in each.get("parameters", []))
        assert all("description" in answer for answer in each["responses"].values())
    for reference in _references(told):
        place: Any = told
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place["type"] == "object"


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if "$ref" in value else []
        return here + [found for each in value.values() for found in _references(each)]
    if isinstance(value, list):
        return [found for each in value for found in _references(each)]
    return []
