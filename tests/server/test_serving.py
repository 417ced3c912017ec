"""Starting, draining and ending a server, with and without signals."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import urllib3

from shoal.errors import SettingError
from shoal.server.app import App
from shoal.server.certificates import Tls, development_certificates
from shoal.server.operators import Operators
from shoal.server.serving import Place, Serving
from shoal.store.blobs import Blobs
from shoal.store.store import open_store
from shoal.wire.messages import CheckIn, Orders, Result, Verdict
from tests.server.caller import Caller, told
from tests.server.here import Here


def app(folder: Path) -> tuple[Here, App]:
    here = Here(open_store("memory:"), Blobs(folder / "blobs"))
    return here, App(here, operators=Operators.of(folder))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "shoal.example", "::"])
def test_without_tls_a_server_is_for_this_machine_only(host: str) -> None:
    with pytest.raises(SettingError, match="speaks TLS"):
        Place(host=host, insecure=True)


def test_without_tls_it_must_be_asked_for() -> None:
    with pytest.raises(SettingError, match="insecure=True"):
        Place(host="127.0.0.1")


def test_plain_http_works_on_this_machine_if_it_is_asked_for(tmp_path: Path) -> None:
    here, application = app(tmp_path)
    with Serving(application, Place(port=0, insecure=True), start=here.start) as serving:
        assert serving.url.startswith("http://127.0.0.1:")
        assert Caller(serving.url, None).ready().ask("POST", "/v1/checkin", CheckIn()).status == 200
    here.store.close()


def test_a_client_of_a_tls_server_that_speaks_plainly_is_not_answered(tmp_path: Path, tls: Tls) -> None:
    here, application = app(tmp_path)
    with (
        Serving(application, Place(port=0, tls=tls), start=here.start) as serving,
        pytest.raises(urllib3.exceptions.HTTPError),
    ):
        urllib3.request("GET", serving.url.replace("https", "http") + "/v1/server", retries=False, timeout=5)
    here.store.close()


def test_clients_turn_away_from_a_server_whose_certificate_expired(tmp_path: Path) -> None:
    here, application = app(tmp_path)
    past = datetime.now(UTC) - timedelta(days=91)
    tls = development_certificates(tmp_path / "tls", ["127.0.0.1"], now=past)
    with (
        Serving(application, Place(port=0, tls=tls), start=here.start) as serving,
        pytest.raises(urllib3.exceptions.SSLError, match="expired"),
    ):
        Caller(serving.url, str(tls.authority)).info()
    here.store.close()


def test_a_port_that_is_taken_is_an_error_where_the_server_was_started(tmp_path: Path, tls: Tls) -> None:
    here, application = app(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = Place(port=taken.getsockname()[1], tls=tls)
        with pytest.raises(OSError), Serving(application, place, start=here.start):
            pass
    here.store.close()


def test_coroutines_run_on_the_servers_loop(tmp_path: Path, tls: Tls) -> None:
    here, application = app(tmp_path)
    with Serving(application, Place(port=0, tls=tls), start=here.start) as serving:
        assert serving.call(here.token(label="x", uses=1, lasts_s=1.0)) == "token of x for 1"
    here.store.close()


def test_draining_answers_those_who_wait_and_finishes_what_is_under_way(tmp_path: Path, tls: Tls) -> None:
    here, application = app(tmp_path)
    answers: dict[str, object] = {}
    with Serving(application, Place(port=0, tls=tls), start=here.start) as serving:
        waits, reports = (Caller(serving.url, str(tls.authority)).ready(name) for name in ("waits", "reports"))
        manifest = here.blobs.put_bytes(b"result")
        here.slow_report_s = 0.5
        task = f"/v1/tasks/{reports.client}-1/report"
        threads = [
            threading.Thread(
                target=lambda: answers.update(wait=told(waits.ask("POST", "/v1/checkin", CheckIn(wait_s=20)), Orders))
            ),
            threading.Thread(
                target=lambda: answers.update(
                    report=told(reports.ask("POST", task, Result(manifest=manifest)), Verdict)
                )
            ),
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        began = time.monotonic()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 10
    assert isinstance(answers["wait"], Orders) and answers["wait"].draining
    assert answers["report"] == Verdict(verdict="counted")
    assert here.stopped
    with pytest.raises(urllib3.exceptions.HTTPError):
        waits.info()
    here.store.close()


def test_a_server_that_drains_says_that_it_is_not_ready(tmp_path: Path, tls: Tls) -> None:
    here, application = app(tmp_path)
    with Serving(application, Place(port=0, tls=tls), start=here.start) as serving:
        caller = Caller(serving.url, str(tls.authority))
        assert caller.raw("GET", "/readyz").status == 200
        application.draining = True
        assert (caller.raw("GET", "/readyz").status, caller.raw("GET", "/healthz").status) == (503, 200)
    here.store.close()


def test_a_store_that_takes_nothing_is_not_ready(tmp_path: Path, tls: Tls) -> None:
    here, application = app(tmp_path)
    here.store.close()
    with Serving(application, Place(port=0, tls=tls), start=here.start) as serving:
        assert Caller(serving.url, str(tls.authority)).raw("GET", "/readyz").data == b"the store takes nothing\n"


SCRIPT = """
import sys
from pathlib import Path
from shoal.server.serving import Place, serve
from shoal.server.certificates import development_certificates
from tests.server.test_serving import app
folder = Path(sys.argv[1])
here, application = app(folder)
place = Place(port=0, tls=development_certificates(folder, ["127.0.0.1"]))
serve(application, place, start=here.start, ready=lambda url: print(url, flush=True))
print("stopped" if here.stopped else "lost", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_exit_is_clean(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        client = Caller(process.stdout.readline().strip(), str(tmp_path / "authority.pem")).ready()
        heard: list[Orders] = []
        waits = threading.Thread(
            target=lambda: heard.append(told(client.ask("POST", "/v1/checkin", CheckIn(wait_s=20)), Orders))
        )
        waits.start()
        time.sleep(0.3)
        process.send_signal(number)
        waits.join()
        assert process.wait(20) == 0, process.stderr.read()
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""
    assert heard[0].draining
