"""Certificates of one's own, and sentences for those that were given."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from shoal.errors import SettingError
from shoal.server.certificates import Tls, development_certificates, given_certificate

NOW = datetime.now(UTC)


def shaken(tls: Tls, host: str, *, newest: ssl.TLSVersion | None = None, context: ssl.SSLContext | None = None) -> str:
    """The version of TLS that a client agrees on that trusts nothing but the authority."""
    ours, theirs = socket.socketpair()
    client = ssl.create_default_context(cafile=str(tls.authority))
    if newest is not None:
        client.minimum_version = client.maximum_version = newest

    def serve() -> None:
        try:
            with (context or tls.context()).wrap_socket(ours, server_side=True) as secure:
                secure.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(theirs, server_hostname=host) as secure:
            secure.send(b"x")
            return secure.version() or ""
    finally:
        theirs.close()
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "shoal.example", "::1"])
def test_a_client_that_trusts_the_authority_trusts_the_server(tmp_path: Path, host: str) -> None:
    tls = development_certificates(tmp_path, ["127.0.0.1", "shoal.example", "::1"])
    assert shaken(tls, host) == "TLSv1.3"


def test_nobody_trusts_it_for_another_host(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(development_certificates(tmp_path, ["127.0.0.1"]), "other.example")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_than_tls_1_2_is_refused(tmp_path: Path) -> None:
    tls = development_certificates(tmp_path, ["127.0.0.1"])
    assert shaken(tls, "127.0.0.1", newest=ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(OSError):
        shaken(tls, "127.0.0.1", newest=ssl.TLSVersion.TLSv1_1)


def test_keys_are_readable_for_this_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        development_certificates(tmp_path, ["127.0.0.1"])
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*-key.pem")} == {
        "authority-key.pem": 0o600,
        "server-key.pem": 0o600,
    }


def test_certificates_are_kept_while_they_last(tmp_path: Path) -> None:
    first = development_certificates(tmp_path, ["127.0.0.1"])
    held = first.certificate.read_bytes()
    assert development_certificates(tmp_path, ["127.0.0.1"]) == first
    assert first.certificate.read_bytes() == held


def test_a_certificate_is_renewed_before_its_end_by_the_same_authority(tmp_path: Path) -> None:
    first = development_certificates(tmp_path, ["127.0.0.1"], now=NOW - timedelta(days=70))
    held = first.certificate.read_bytes()
    second = first.renewed()
    assert second.fingerprint == first.fingerprint
    assert second.certificate.read_bytes() != held
    assert shaken(second, "127.0.0.1") == "TLSv1.3"


def test_connections_after_a_renewal_have_the_new_certificate(tmp_path: Path) -> None:
    old = development_certificates(tmp_path, ["127.0.0.1"], now=NOW - timedelta(days=91))
    context = old.context()
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shaken(old, "127.0.0.1", context=context)
    old.refresh(context)
    assert shaken(old, "127.0.0.1", context=context) == "TLSv1.3"


def test_another_host_gets_another_certificate_by_the_same_authority(tmp_path: Path) -> None:
    first = development_certificates(tmp_path, ["127.0.0.1"])
    second = development_certificates(tmp_path, ["127.0.0.1", "new.example"])
    assert second.fingerprint == first.fingerprint
    assert shaken(second, "new.example") == "TLSv1.3"


def test_an_authority_that_ends_is_made_anew(tmp_path: Path) -> None:
    old = development_certificates(tmp_path, ["127.0.0.1"], now=NOW - timedelta(days=3650))
    new = development_certificates(tmp_path, ["127.0.0.1"])
    assert new.fingerprint != old.fingerprint
    assert shaken(new, "127.0.0.1") == "TLSv1.3"


def test_the_fingerprint_is_the_authoritys(tmp_path: Path) -> None:
    tls = development_certificates(tmp_path, ["127.0.0.1"])
    assert tls.authority is not None
    der = ssl.PEM_cert_to_DER_cert(tls.authority.read_text())
    assert tls.fingerprint.replace(":", "").lower() == hashlib.sha256(der).hexdigest()
    assert x509.load_der_x509_certificate(der).not_valid_after_utc > NOW + timedelta(days=3000)


def test_a_given_certificate_is_taken_as_it_is(tmp_path: Path) -> None:
    made = development_certificates(tmp_path, ["127.0.0.1"])
    tls = given_certificate(made.certificate, made.key, hosts=["127.0.0.1"])
    assert tls.authority is None
    assert tls.renewed() is tls


def test_what_is_wrong_with_a_given_certificate_is_said(tmp_path: Path) -> None:
    made = development_certificates(tmp_path / "a", ["127.0.0.1", "*.sites.example"])
    other = development_certificates(tmp_path / "b", ["127.0.0.1"])
    (tmp_path / "text.pem").write_text("not a certificate")
    given_certificate(made.certificate, made.key, hosts=["one.sites.example"])
    with pytest.raises(SettingError, match="expired on"):
        given_certificate(made.certificate, made.key, now=NOW + timedelta(days=91))
    with pytest.raises(SettingError, match="look at the clock"):
        given_certificate(made.certificate, made.key, now=NOW - timedelta(days=1))
    with pytest.raises(SettingError, match=r"is not for shoal\.example, but for"):
        given_certificate(made.certificate, made.key, hosts=["shoal.example"])
    with pytest.raises(SettingError, match="is not the key of"):
        given_certificate(made.certificate, other.key)
    with pytest.raises(SettingError, match="no certificate in PEM form"):
        given_certificate(tmp_path / "text.pem", made.key)
    with pytest.raises(SettingError, match="no private key in PEM form"):
        given_certificate(made.certificate, tmp_path / "text.pem")
    with pytest.raises(SettingError, match="cannot be read"):
        given_certificate(tmp_path / "nowhere.pem", made.key)
    with pytest.raises(SettingError, match="at least one host"):
        development_certificates(tmp_path, [])
