"""What becomes of clients that are wrong, hasty, slow or hostile: each gets its status, and the server goes on."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import urllib3

from shoal.errors import StoreError
from shoal.server.limits import Limits
from shoal.server.metrics import resident_bytes
from shoal.wire.blobs import manifest_of
from shoal.wire.codec import encode
from shoal.wire.messages import CheckIn, Enroll, Manifest, Missing, Orders, Result, SecureStep, Upload
from shoal.wire.signing import digest_of, enroll_bytes, new_key, public_key_of, sign
from tests.server.caller import Caller, problem, told
from tests.server.conftest import Serve, Server
from tests.server.here import TOKEN

EMPTY = encode(CheckIn())


@contextlib.contextmanager
def socket_to(server: Server) -> Iterator[ssl.SSLSocket]:
    """A bare connection, for those who do not speak HTTP as others do."""
    context = ssl.create_default_context(cafile=str(server.tls.authority))
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        yield secure


def works(server: Server) -> bool:
    """Whether an honest client is served."""
    return told(server.client().ask("POST", "/v1/checkin", CheckIn()), Orders).wait_s == 0.5


def offered(client: Caller, data: bytes, *, part_bytes: int = 8 * 1024 * 1024) -> str:
    """A task whose upload was announced."""
    task = f"{client.client}-{os.urandom(3).hex()}"
    manifest = manifest_of(data, part_bytes=part_bytes)
    told(client.ask("POST", f"/v1/tasks/{task}/upload", Upload(manifest=manifest)), Missing)
    return task


# who they are


def test_a_wrong_token_enrols_nobody(server: Server) -> None:
    assert problem(server.caller().enroll(token="guessed")) == "403 token"


def test_a_key_that_is_not_held_is_not_enrolled(server: Server) -> None:
    caller = server.caller()
    honest, caller.key = caller.key, new_key()
    message = caller.enroll()
    assert message.status == 200
    public = public_key_of(caller.key)
    signed = sign(honest, enroll_bytes("hearts", TOKEN, "thief", public))
    stolen = Enroll(token=TOKEN, name="thief", public_key=public, signature=signed)
    assert problem(caller.plain("POST", "/v1/enroll", stolen)) == "403 bad-signature"


def test_a_hello_by_another_key_opens_no_session(server: Server) -> None:
    client = server.client()
    assert problem(client.hello(key=new_key())) == "403 client-unknown"


def test_a_client_that_nobody_enrolled_opens_no_session(server: Server) -> None:
    assert problem(server.client().hello(client="somebody")) == "403 client-unknown"


def test_a_hello_is_good_once(server: Server) -> None:
    client, nonce = server.client(), os.urandom(16)
    assert client.hello(nonce=nonce).status == 200
    assert problem(client.hello(nonce=nonce)) == "401 replayed"


def test_a_hello_to_an_earlier_start_of_the_server_asks_for_another(server: Server) -> None:
    assert problem(server.client().hello(boot="boot0000")) == "401 session-unknown"


def test_of_two_agents_with_one_identity_the_newer_is_listened_to(server: Server) -> None:
    older = server.client()
    newer = server.caller(older.key)
    newer.client = older.client
    assert newer.hello().status == 200
    assert problem(older.ask("POST", "/v1/checkin", CheckIn())) == "409 superseded"
    assert problem(older.hello()) == "409 superseded"
    assert newer.ask("POST", "/v1/checkin", CheckIn()).status == 200
    assert older.client in server.here.left
    until = time.monotonic() + 10  # the row is written after the answer
    while not (rows := server.here.store.read("audit", after=0, limit=1000)) and time.monotonic() < until:
        time.sleep(0.01)
    assert "superseded" in [row["action"] for row in rows]


def test_an_agent_whose_identity_is_taken_hears_it_at_the_end_of_its_wait(server: Server) -> None:
    older = server.client()
    heard: list[str] = []
    waits = threading.Thread(
        target=lambda: heard.append(problem(older.ask("POST", "/v1/checkin", CheckIn(wait_s=1.0))))
    )
    waits.start()
    while not any(client == older.client for client, _ in server.here.checked_in):
        time.sleep(0.01)
    newer = server.caller(older.key)
    newer.client = older.client
    newer.hello()
    waits.join()
    assert heard == ["409 superseded"]


# what they send


def test_a_request_is_good_once(server: Server) -> None:
    client = server.client()
    headers = client.headers("POST", "/v1/checkin", digest=digest_of(EMPTY))
    again = [client.http.request("POST", client.url + "/v1/checkin", body=EMPTY, headers=headers) for _ in range(2)]
    assert again[0].status == 200
    assert problem(again[1]) == "401 replayed"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"shoal_mac": "0" * 64}, "401 bad-mac"),
        ({"shoal_mac": "ü"}, "401 bad-mac"),
        ({"shoal_counter": "77"}, "401 bad-mac"),
        ({"shoal_counter": "-1"}, "400 malformed"),
        ({"shoal_counter": "9" * 30}, "400 malformed"),
        ({"shoal_counter": "٣"}, "400 malformed"),
        ({"shoal_digest": "0" * 64}, "401 bad-mac"),
        ({"shoal_session": "nobody"}, "401 session-unknown"),
        ({"shoal_session": ""}, "401 session-unknown"),
        ({"shoal_version": "0"}, "426 version"),
        ({"shoal_version": ""}, "426 version"),
        ({"shoal_version": "2"}, "426 version"),
        ({"content_type": "text/plain"}, "415 media-type"),
    ],
)
def test_headers_that_are_wrong_get_their_status(server: Server, other: dict[str, str], said: str) -> None:
    other = {name: value.encode().decode("latin-1") for name, value in other.items()}
    assert problem(server.client().ask("POST", "/v1/checkin", CheckIn(), **other)) == said


def test_a_mac_is_for_one_path_and_one_method(server: Server) -> None:
    client = server.client()
    headers = client.headers("POST", "/v1/tasks/a/decline", digest=digest_of(EMPTY))
    moved = client.http.request("POST", client.url + "/v1/checkin", body=EMPTY, headers=headers)
    assert problem(moved) == "401 bad-mac"


def test_a_body_that_is_not_the_one_that_was_signed_is_not_looked_at(server: Server) -> None:
    client = server.client()
    headers = client.headers("POST", "/v1/checkin", digest=digest_of(EMPTY))
    swapped = client.http.request("POST", client.url + "/v1/checkin", body=encode(CheckIn(busy=True)), headers=headers)
    assert problem(swapped) == "400 wrong-digest"


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x81\xa4busy\xa3yes", bytes(range(100, 0, -1))], ids=["empty", "never", "text", "noise"]
)
def test_a_body_that_is_no_message_is_malformed(server: Server, body: bytes) -> None:
    client = server.client()
    headers = client.headers("POST", "/v1/checkin", digest=digest_of(body))
    headers["content-length"] = str(len(body))
    answer = client.http.request("POST", client.url + "/v1/checkin", body=body, headers=headers)
    assert problem(answer) == "400 malformed"


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/v1/nothing", "404 not-found"),
        ("DELETE", "/v1/runs", "405 method"),
        ("GET", "/v1/tasks/a/report", "404 not-found"),
        ("PUT", "/v1/tasks/a/parts/x", "404 not-found"),
        ("GET", "/v1/blobs/short", "404 not-found"),
        ("GET", "/v1/blobs/../../etc/passwd", "404 not-found"),
        ("GET", "/", "404 not-found"),
    ],
)
def test_what_is_not_there_is_not_found(server: Server, method: str, path: str, said: str) -> None:
    assert problem(server.client().ask(method, path)) == said


def test_a_blob_that_no_task_names_is_as_one_that_is_not_there(server: Server) -> None:
    assert problem(server.client().ask("GET", f"/v1/blobs/{'0' * 64}")) == "404 blob-unknown"


def test_another_clients_task_is_nobody_elses(server: Server) -> None:
    owner, other = server.client(), server.client()
    task = offered(owner, b"mine")
    assert problem(other.ask("PUT", f"/v1/tasks/{task}/parts/0", b"mine")) == "403 not-yours"
    result = Result(manifest=manifest_of(b"mine"))
    assert problem(other.ask("POST", f"/v1/tasks/{task}/report", result)) == "403 not-yours"


def test_a_message_of_a_secure_sum_that_is_over_and_one_of_another_client_get_their_status(server: Server) -> None:
    client, other = server.client(), server.client()
    step = SecureStep(stage="advertise", message=b"keys")
    assert problem(client.ask("POST", f"/v1/tasks/{client.client}-1/secure", step)) == "410 secure-over"
    assert problem(other.ask("POST", f"/v1/tasks/{client.client}-1/secure", step)) == "403 not-yours"
    assert problem(client.ask("POST", f"/v1/tasks/{client.client}-1/secure", EMPTY)) == "400 malformed"


def test_a_task_that_does_not_exist_is_unknown(server: Server) -> None:
    result = Result(manifest=manifest_of(b"x"))
    assert problem(server.client().ask("POST", "/v1/tasks/nobodys-9/report", result)) == "404 task-unknown"


def test_parts_come_after_they_were_announced(server: Server) -> None:
    client = server.client()
    assert problem(client.ask("PUT", f"/v1/tasks/{client.client}-9/parts/0", b"x")) == "409 not-offered"


@pytest.mark.parametrize(
    ("n", "data"),
    [(0, b"wrong bytes of the right length!"), (0, b"short"), (0, b"longer than what was said to come"), (7, b"x")],
)
def test_a_part_that_is_not_what_was_declared_leaves_nothing(server: Server, n: int, data: bytes) -> None:
    client = server.client()
    announced = b"thirty-two bytes were announced."
    task = offered(client, announced)
    assert problem(client.ask("PUT", f"/v1/tasks/{task}/parts/{n}", data)) == "422 rejected"
    assert client.ask("PUT", f"/v1/tasks/{task}/parts/0", announced).status == 204


def test_a_manifest_that_contradicts_itself_is_rejected(server: Server) -> None:
    client = server.client()
    manifest = Manifest(size_bytes=10**12, part_bytes=1, parts=(b"\0" * 32,), raw_bytes=10**12)
    answer = client.ask("POST", f"/v1/tasks/{client.client}-1/upload", Upload(manifest=manifest))
    assert problem(answer) == "422 rejected"


def test_a_part_that_is_cut_off_is_sent_again(server: Server) -> None:
    client, data = server.client(), os.urandom(500_000)
    task = offered(client, data)
    path = f"/v1/tasks/{task}/parts/0"
    lines = [f"{name}: {value}" for name, value in client.headers("PUT", path, digest=digest_of(data)).items()]
    head = "\r\n".join([f"PUT {path} HTTP/1.1", "host: x", f"content-length: {len(data)}", *lines, "", ""])
    with socket_to(server) as connection:
        connection.sendall(head.encode() + data[:200_000])
    assert client.ask("PUT", path, data).status == 204


# how much they send


def test_a_body_without_a_length_is_refused_before_it_is_read(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65_536

    caller = server.caller()
    with contextlib.suppress(urllib3.exceptions.HTTPError):  # it may see the end before the answer
        answer = caller.http.request(
            "POST", caller.url + "/v1/enroll", body=endless(), headers={"shoal-version": "1"}, chunked=True
        )
        assert answer.status == 411
    assert works(server)


def test_two_gigabytes_of_nobody_do_not_move_the_servers_memory(server: Server) -> None:
    before = resident_bytes()
    with socket_to(server) as connection:
        connection.sendall(
            b"POST /v1/enroll HTTP/1.1\r\nhost: x\r\nshoal-version: 1\r\ncontent-length: 2000000000\r\n\r\n"
        )
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 2000:
                connection.sendall(b"x" * 1_000_000)
                sent += 1
    assert sent < 2000, "the server read it all"
    assert resident_bytes() - before < 30_000_000
    assert works(server)


@pytest.mark.parametrize(("path", "length"), [("/v1/checkin", 300_000), ("/v1/tasks/a-1/report", 5_000_000),
                                              ("/v1/tasks/a-1/parts/0", 70_000_000)])  # fmt: skip
def test_a_body_that_says_that_it_is_too_large_is_not_read(server: Server, path: str, length: int) -> None:
    method = "PUT" if "parts" in path else "POST"
    with socket_to(server) as connection:
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nshoal-version: 1\r\ncontent-length: {length}\r\n\r\n".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "headers", [b"x: " + b"y" * 40_000, b"\r\n".join(b"x%d: y" % n for n in range(100)), b"x: y\r\n" * 20_000]
)
def test_headers_without_measure_end_the_connection(server: Server, headers: bytes) -> None:
    with socket_to(server) as connection, contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        connection.sendall(b"GET /v1/server HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    assert works(server)


def test_headers_that_never_end_fill_no_memory(server: Server) -> None:
    with socket_to(server) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET /v1/server HTTP/1.1\r\nx: ")
        while True:
            connection.sendall(b"y" * 10_000)
    assert works(server)


def test_a_refused_part_is_passed_over_and_the_connection_goes_on(server: Server) -> None:
    """After the server was started again, a client hears that its session is gone, not that its connection broke."""
    client = server.client()
    part = os.urandom(3_000_000)
    for _ in range(20):
        answer = client.ask("PUT", f"/v1/tasks/{client.client}-1/parts/0", part, shoal_session="gone")
        assert problem(answer) == "401 session-unknown"
        assert "connection" not in answer.headers
        assert client.ask("POST", "/v1/checkin", CheckIn()).status == 200
    assert client.http.connection_from_url(client.url).num_connections == 1


# how often, how slowly


def test_ten_thousand_tiny_requests_meet_a_limit_and_nobody_else_does(serve: Serve) -> None:
    server = serve(Limits(client_rate=20, anonymous_rate=50))
    hasty, calm = server.client(), server.client()
    refused = [hasty.ask("POST", "/v1/checkin", CheckIn()) for _ in range(500)]
    late = [answer for answer in refused if answer.status != 200]
    assert len(late) > 100
    assert problem(late[0]) == "429 too-many"
    assert int(late[0].headers["retry-after"]) >= 1
    assert calm.ask("POST", "/v1/checkin", CheckIn()).status == 200


def test_whoever_guesses_is_soon_asked_to_wait_and_known_clients_are_not(serve: Serve) -> None:
    server = serve(Limits(anonymous_rate=5))
    client = server.client()
    guesses = [client.ask("POST", "/v1/checkin", CheckIn(), shoal_session="guess") for _ in range(100)]
    assert {problem(answer) for answer in guesses} == {"401 session-unknown", "429 too-many"}
    assert problem(client.raw("GET", "/v1/runs", accept="application/msgpack")) == "429 too-many"
    assert client.ask("POST", "/v1/checkin", CheckIn()).status == 200


@pytest.fixture(scope="module")
def impatient(serve: Serve) -> Server:
    return serve(Limits(header_s=0.5, patience_s=0.5, slowest=1e6, idle_s=1, connections_per_address=5))


def ended(connection: ssl.SSLSocket) -> bytes:
    """What the server said before it ended the connection."""
    said = b""
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
        while piece := connection.recv(1000):
            said += piece
    return said


@pytest.mark.parametrize("first", [b"", b"GET /v1/server HTTP/1.1\r\nx:", b"\r\n"])
def test_whoever_does_not_come_to_the_point_is_left(impatient: Server, first: bytes) -> None:
    with socket_to(impatient) as connection:
        connection.sendall(first)
        assert ended(connection) == b""


def test_headers_a_byte_at_a_time_are_not_waited_for(impatient: Server) -> None:
    with socket_to(impatient) as connection, contextlib.suppress(OSError):
        for byte in b"GET /v1/server HTTP/1.1\r\nx: " + b"y" * 100:
            connection.send(bytes([byte]))
            time.sleep(0.05)
        pytest.fail("the server waited for ever")


def test_a_body_that_trickles_is_answered_with_408(impatient: Server) -> None:
    with socket_to(impatient) as connection:
        connection.sendall(
            b"POST /v1/enroll HTTP/1.1\r\nhost: x\r\nshoal-version: 1\r\ncontent-length: 100\r\n"
            b"content-type: application/msgpack\r\n\r\nx"
        )
        assert b"408" in connection.recv(100)


def test_a_connection_without_requests_is_closed(impatient: Server) -> None:
    with socket_to(impatient) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert ended(connection).startswith(b"HTTP/1.1 200")


def test_more_connections_than_an_address_may_have_are_turned_away(impatient: Server) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket_to(impatient)) for _ in range(20)]
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert sum(ended(connection).startswith(b"HTTP/1.1 200") for connection in connections) <= 5
    assert works(impatient)


# what fails here


def test_a_full_disk_is_507_and_a_store_that_fails_503(server: Server) -> None:
    client = server.client()
    full = StoreError("could not keep what is uploaded")
    full.__cause__ = OSError(28, "No space left on device")
    try:
        server.here.fails = full
        answer = client.ask("POST", "/v1/checkin", CheckIn())
        assert problem(answer) == "507 disk-full"
        assert int(answer.headers["retry-after"]) > 0
        server.here.fails = StoreError("the store at /secret/place cannot be used")
        answer = client.ask("POST", "/v1/checkin", CheckIn())
        assert problem(answer) == "503 store"
        assert b"secret" not in answer.data
    finally:
        server.here.fails = None


def test_a_defect_says_nothing_but_that_it_is_one(server: Server) -> None:
    client = server.client()
    try:
        server.here.fails = ZeroDivisionError("a value from somebody's data: 41")
        answer = client.ask("POST", "/v1/checkin", CheckIn())
    finally:
        server.here.fails = None
    assert problem(answer) == "500 internal"
    assert b"41" not in answer.data


def test_a_client_that_was_revoked_is_refused_at_its_next_request(server: Server) -> None:
    client = server.client()
    del server.here.keys[client.client]
    assert problem(client.ask("POST", "/v1/checkin", CheckIn())) == "403 client-unknown"
