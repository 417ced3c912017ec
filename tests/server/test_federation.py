"""A server put together in a folder: what is kept from one start to the next, and what operators and clients trust."""

from __future__ import annotations

import json
import logging
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

import shoal
from shoal.errors import SettingError
from shoal.server import logs
from shoal.server.address import Address
from shoal.server.certificates import development_certificates
from shoal.server.federation import Federation, log_to_file

PLAN = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3)), rounds=2)
OTHER = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3)), rounds=3)


def begin(federation: Federation, plan: shoal.Plan = PLAN, **given: object) -> str:
    with federation.running() as serving:
        return serving.call(federation.submit_once(plan, name="heart", **given))  # type: ignore[arg-type]


def test_a_run_is_taken_up_by_name_and_plan_at_the_next_start(tmp_path: Path) -> None:
    first = begin(Federation.at(tmp_path, port=0, name="wards"), seed=5)
    again = Federation.at(tmp_path, port=0)
    assert again.coordinator.federation == "wards"
    assert begin(again, seed=5) == first


@pytest.mark.parametrize(
    ("plan", "given", "said"),
    [
        (OTHER, {}, "has another plan"),
        (PLAN, {"rules": shoal.Rules(at_least=3)}, "other rules"),
        (PLAN, {"seed": 6}, "another seed"),
    ],
)
def test_a_run_of_that_name_that_is_another_one_is_refused(
    tmp_path: Path, plan: shoal.Plan, given: dict[str, object], said: str
) -> None:
    begin(Federation.at(tmp_path, port=0), rules=shoal.Rules(at_least=2), seed=5)
    with pytest.raises(SettingError, match=said):
        begin(Federation.at(tmp_path, port=0), plan, **given)


def test_a_store_belongs_to_one_federation(tmp_path: Path) -> None:
    Federation.at(tmp_path, port=0, name="wards").store.close()
    with pytest.raises(SettingError, match="belongs to the federation wards"):
        Federation.at(tmp_path, port=0, name="others")
    Federation.at(tmp_path, port=0, name="wards").store.close()  # the store was given back


def test_a_name_that_no_client_would_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="federation's name"):
        Federation.at(tmp_path, port=0, name="-")


def test_the_authority_that_the_server_shows_is_the_one_whose_fingerprint_it_says(tmp_path: Path) -> None:
    federation = Federation.at(tmp_path, port=0)
    with federation.running():
        assert federation.tls is not None and federation.tls.authority is not None
        context = ssl.create_default_context(cafile=federation.tls.authority)
        with urllib3.PoolManager(ssl_context=context, retries=False) as pool:
            shown = pool.request("GET", f"{federation.url}/v1/authority").data
    assert shown == federation.tls.authority.read_bytes()


def test_a_server_for_every_address_is_known_by_this_machines_name(tmp_path: Path) -> None:
    federation = Federation.at(tmp_path, host="0.0.0.0", port=0)
    with federation.running():
        assert federation.url.startswith(f"https://{socket.gethostname()}:")
        assert Address.of(tmp_path).url.startswith("https://127.0.0.1:")


def test_a_port_that_is_taken_is_a_sentence_and_the_store_is_given_back(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for _ in range(2):
            federation = Federation.at(tmp_path, port=taken.getsockname()[1])
            with pytest.raises(SettingError, match="choose another port"), federation.running():
                pass


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="together"):
        Federation.at(tmp_path, certificate=tmp_path / "server.pem")


def test_a_certificate_without_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="give one of them"):
        Federation.at(tmp_path, insecure=True, certificate=tmp_path / "server.pem", key=tmp_path / "server-key.pem")


def test_a_certificate_for_every_host_of_a_domain_leaves_the_name_to_be_said(tmp_path: Path) -> None:
    tls = development_certificates(tmp_path, ["*.example.org"])
    with pytest.raises(SettingError, match="say by which name"):
        Federation.at(tmp_path / "a", certificate=tls.certificate, key=tls.key)
    said = Federation.at(tmp_path / "b", port=0, certificate=tls.certificate, key=tls.key, hosts=("fl.example.org",))
    with said.running():
        assert said.url.startswith("https://fl.example.org:")


def test_in_the_foreground_it_serves_until_a_signal(tmp_path: Path) -> None:
    program = (
        "import sys; from shoal.server.federation import Federation\n"
        "federation = Federation.at(sys.argv[1], port=0)\n"
        "federation.serve(ready=lambda url: print(url, flush=True))\n"
        "print('ended')"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith("https://127.0.0.1:")
        server.send_signal(signal.SIGTERM)
        assert server.stdout.read() == "ended\n"
    assert server.returncode == 0


def test_a_given_certificate_says_what_clients_call(tmp_path: Path) -> None:
    own = Federation.at(tmp_path / "a", port=0, hosts=("fl.example.org",))
    own.store.close()
    assert own.tls is not None
    given = Federation.at(tmp_path / "b", port=0, certificate=own.tls.certificate, key=own.tls.key)
    with given.running():
        assert given.url.startswith("https://fl.example.org:")


def test_no_server_has_served_from_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="shoal serve"):
        Address.of(tmp_path)


def test_the_log_is_json_lines_in_the_folder(tmp_path: Path) -> None:
    log_to_file(tmp_path)
    try:
        logs.event(logging.INFO, "round closed", run="r1")
        assert json.loads((tmp_path / "log.jsonl").read_text())["run"] == "r1"
    finally:
        for handler in list(logs.log.handlers):
            logs.log.removeHandler(handler)
            handler.close()
        logs.log.propagate = True
