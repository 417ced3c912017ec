"""What an honest client is told, over TLS."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time

import pytest

from shoal.wire.blobs import blob_id, manifest_of
from shoal.wire.codec import encode_json
from shoal.wire.messages import CheckIn, Declined, Missing, Orders, Result, Upload, Verdict
from shoal.wire.signing import digest_of
from tests.server.caller import told
from tests.server.conftest import Server


def test_a_server_says_who_it_is_before_anybody_says_who_they_are(server: Server) -> None:
    info = server.caller().info()
    assert (info.federation, info.versions, info.boot) == ("hearts", (1,), "boot0001")
    assert abs(info.time - time.time()) < 60


def test_a_client_enrols_says_hello_and_checks_in(server: Server) -> None:
    client = server.client()
    orders = told(client.ask("POST", "/v1/checkin", CheckIn(busy=True)), Orders)
    assert orders.wait_s == 0.5
    assert (client.client, CheckIn(busy=True)) in server.here.checked_in


def test_a_person_with_curl_is_answered_in_json(server: Server) -> None:
    answer = server.caller().raw("GET", "/v1/server")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.data)["federation"] == "hearts"


def test_a_message_may_be_json(server: Server) -> None:
    client = server.client()
    body = encode_json(CheckIn())
    headers = client.headers("POST", "/v1/checkin", digest=digest_of(body))
    headers |= {"content-type": "application/json", "accept": "application/json"}
    answer = client.http.request("POST", client.url + "/v1/checkin", body=body, headers=headers)
    assert json.loads(answer.data)["wait_s"] == 0.5


def test_an_upload_in_parts_is_whole_and_reported_as_often_as_one_likes(server: Server) -> None:
    client = server.client()
    task, data = f"{client.client}-1", os.urandom(300_000)
    manifest = manifest_of(data, part_bytes=100_000)
    assert told(client.ask("POST", f"/v1/tasks/{task}/upload", Upload(manifest=manifest)), Missing).parts == (0, 1, 2)
    for n in (2, 0):
        part = data[n * 100_000 : (n + 1) * 100_000]
        assert client.ask("PUT", f"/v1/tasks/{task}/parts/{n}", part).status == 204
    assert told(client.ask("POST", f"/v1/tasks/{task}/upload", Upload(manifest=manifest)), Missing).parts == (1,)
    for _ in range(2):
        assert client.ask("PUT", f"/v1/tasks/{task}/parts/1", data[100_000:200_000]).status == 204
    for _ in range(2):
        report = client.ask("POST", f"/v1/tasks/{task}/report", Result(manifest=manifest))
        assert told(report, Verdict).verdict == "counted"
    assert server.here.blobs.path(blob_id(manifest)).read_bytes() == data


def test_requests_beside_each_other_may_overtake(server: Server) -> None:
    client = server.client()
    empty = digest_of(b"\x80")
    later, earlier = (client.headers("POST", "/v1/checkin", digest=empty, counter=n) for n in (9, 4))
    for headers in (later, earlier):
        assert client.http.request("POST", client.url + "/v1/checkin", body=b"\x80", headers=headers).status == 200


def test_a_task_can_be_declined(server: Server) -> None:
    client = server.client()
    answer = client.ask("POST", f"/v1/tasks/{client.client}-1/decline", Declined(reason="policy"))
    assert told(answer, Verdict).message == "policy"


@pytest.fixture(scope="module")
def blob(server: Server) -> tuple[str, bytes]:
    data = os.urandom(1_000_000)
    return blob_id(server.here.blobs.put_bytes(data)), data


def test_a_blob_is_sent_whole_and_may_be_kept_for_ever(server: Server, blob: tuple[str, bytes]) -> None:
    name, data = blob
    answer = server.client().ask("GET", f"/v1/blobs/{name}")
    assert (answer.status, answer.data) == (200, data)
    assert answer.headers["etag"] == f'"{name}"'
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-9", 0, 9), ("bytes=999990-", 999_990, 999_999), ("bytes=-5", 999_995, 999_999),
     ("bytes=500000-9999999", 500_000, 999_999)],
)  # fmt: skip
def test_a_range_of_a_blob_is_those_bytes(
    server: Server, blob: tuple[str, bytes], asked: str, first: int, last: int
) -> None:
    name, data = blob
    answer = server.client().ask("GET", f"/v1/blobs/{name}", range=asked)
    assert (answer.status, answer.data) == (206, data[first : last + 1])
    assert answer.headers["content-range"] == f"bytes {first}-{last}/1000000"


@pytest.mark.parametrize("asked", ["bytes=1000000-", "bytes=9-1", "bytes=-0", "bytes=0-1,5-6", "lines=1-2"])
def test_a_range_that_is_not_there_is_refused(server: Server, blob: tuple[str, bytes], asked: str) -> None:
    assert server.client().ask("GET", f"/v1/blobs/{blob[0]}", range=asked).status == 416


def test_a_blob_that_the_client_has_is_not_sent_again(server: Server, blob: tuple[str, bytes]) -> None:
    answer = server.client().ask("GET", f"/v1/blobs/{blob[0]}", if_none_match=f'"{blob[0]}"')
    assert (answer.status, answer.data) == (304, b"")


def test_many_uploads_at_once_are_each_what_was_sent(server: Server) -> None:
    def one(data: bytes) -> None:
        client = server.client()
        task, manifest = f"{client.client}-1", manifest_of(data)
        told(client.ask("POST", f"/v1/tasks/{task}/upload", Upload(manifest=manifest)), Missing)
        assert client.ask("PUT", f"/v1/tasks/{task}/parts/0", data).status == 204
        told(client.ask("POST", f"/v1/tasks/{task}/report", Result(manifest=manifest)), Verdict)
        found.append(hashlib.sha256(server.here.blobs.path(blob_id(manifest)).read_bytes()).digest())

    found: list[bytes] = []
    sent = [os.urandom(400_000) for _ in range(8)]
    threads = [threading.Thread(target=one, args=(data,)) for data in sent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(hashlib.sha256(data).digest() for data in sent)


def test_a_long_poll_is_answered_when_its_time_is_over(server: Server) -> None:
    client = server.client()
    assert told(client.ask("POST", "/v1/checkin", CheckIn(wait_s=0.3)), Orders).wait_s == 0.5


def test_health_readiness_and_figures_are_there_without_a_token(server: Server) -> None:
    caller = server.caller()
    assert caller.raw("GET", "/healthz").status == 200
    assert caller.raw("GET", "/readyz").data == b"ready\n"
    figures = caller.raw("GET", "/metrics").data.decode()
    assert 'shoal_tasks{status="issued"} 4.0' in figures
    assert "shoal_open_rounds 2.0" in figures
    assert "shoal_resident_bytes" in figures
    assert 'shoal_request_seconds_count{route="server",status="200"}' in figures
