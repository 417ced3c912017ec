"""A client reaches its server through everything that goes wrong between them, and says what it cannot mend."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from shoal.client.backoff import Backoff
from shoal.client.connection import Connection
from shoal.client.enrolment import enrol
from shoal.client.events import Away, Connected, Skewed
from shoal.client.identity import Home
from shoal.client.ledger import Ledger
from shoal.client.line import Line
from shoal.client.tls import checked_url
from shoal.client.transfers import download, report
from shoal.errors import ServerError, SettingError, StoppedError, StoreError, SupersededError, WireError
from shoal.store.blobs import Blobs
from shoal.wire.blobs import blob_id
from shoal.wire.messages import CheckIn, Declined
from tests.client.server import Cut, Page, Refusal, Server, busy, cut


class Site:
    """A client of a test's server, with a home, and waits that take no time."""

    def __init__(self, folder, url, **options):
        self.home, self.events, self.waits, self.sent = Home(folder), [], [], []
        self.ledger = Ledger(folder / "ledger.db")
        self.line = Line(
            url, backoff=Backoff(draw=lambda: 0.5), pause=self.waits.append, tell=self.events.append,
            count=lambda kind, size: self.sent.append((kind, size)), **options,
        )  # fmt: skip

    def enrol(self, name="a", token="one-time"):
        return enrol(self.home, self.line, token=token, name=name, ledger=self.ledger)

    def connection(self):
        identity = self.home.identity or self.enrol()
        return Connection(
            self.line, identity, private_key=self.home.private_key, tell=self.events.append, wall=lambda: 0.0
        )


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def url(server):
    with server.serving() as url:
        yield url


@pytest.fixture
def site(tmp_path, url):
    site = Site(tmp_path / "home", url)
    yield site
    site.line.close()
    site.ledger.close()


def test_a_token_enrols_once_and_the_same_key_again_after_an_answer_that_was_lost(server, site):
    server.faults["POST /v1/enroll"] = [("after", cut)]
    identity = site.enrol(name="ward-3")
    assert (identity.client, identity.name, identity.federation) == ("c1", "ward-3", "ward")
    assert site.home.identity == identity
    assert server.requests.count("POST /v1/enroll") == 2
    assert server.clients["c1"][1] != site.home.private_key


def test_a_token_that_is_used_up_is_refused_at_once_with_what_to_do(server, site):
    server.token = None
    with pytest.raises(ServerError, match="ask for a new one") as caught:
        site.enrol()
    assert caught.value.code == "token" and site.waits == []


def test_a_home_is_one_federations(server, site):
    site.enrol()
    server.federation = "another"
    with pytest.raises(ServerError, match=r"ward.*another"):
        site.enrol()
    with pytest.raises(ServerError, match="another"):
        site.connection().check_in(CheckIn())


def test_requests_are_made_again_with_growing_waits_and_those_that_the_server_asks_for(server, site):
    connection = site.connection()
    server.faults["POST /v1/checkin"] = [cut, busy(), busy(30.0), ("after", cut)]
    assert connection.check_in(CheckIn()).tasks == ()
    assert site.waits == [0.25, 0.5, 31.0, 2.0]
    assert [type(event) for event in site.events] == [Connected, Away, Away, Away, Away]
    assert len(server.check_ins) == 2


@given(st.integers(0, 200), st.floats(0, 1), st.none() | st.floats(0, 1e4))
def test_a_wait_is_never_shorter_than_asked_nor_longer_than_a_minute_beyond_it(attempt, drawn, asked):
    wait = Backoff(draw=lambda: drawn).wait_s(attempt, asked_s=asked)
    assert (asked or 0) <= wait <= (asked or 0) + min(60.0, 0.5 * 2.0**attempt)


def test_a_restarted_server_is_said_hello_to_again(server, site):
    connection = site.connection()
    connection.check_in(CheckIn())
    server.restart()
    connection.check_in(CheckIn())
    server.restart()
    connection.decline("t1", Declined(reason="busy"))
    assert server.requests.count("POST /v1/session") == 3
    assert site.waits == []


def test_a_refusal_that_no_new_session_mends_is_believed_in_the_end(server, site):
    connection = site.connection()

    def refuse():
        raise Refusal(401, "bad-mac")

    server.faults["POST /v1/checkin"] = [refuse] * 100
    with pytest.raises(ServerError) as caught:
        connection.check_in(CheckIn())
    assert caught.value.code == "bad-mac" and server.requests.count("POST /v1/checkin") < 20


def test_the_older_of_two_agents_with_one_key_is_told_that_it_is_superseded(server, site, url):
    older, newer = site.connection(), site.connection()
    older.check_in(CheckIn())
    newer.check_in(CheckIn())
    with pytest.raises(SupersededError, match="another agent"):
        older.check_in(CheckIn())
    newer.check_in(CheckIn())


def test_another_version_of_the_protocol_is_a_clear_end(server, site):
    connection = site.connection()
    server.versions = (2, 3)
    with pytest.raises(ServerError, match=r"version 2, 3.*this client 1"):
        connection.check_in(CheckIn())
    server.versions = (1,)

    def refuse():
        raise Refusal(426, "version", "only version 2 from tomorrow")

    server.faults["POST /v1/checkin"] = [refuse]
    with pytest.raises(ServerError, match="only version 2"):
        connection.check_in(CheckIn())


def test_a_clock_that_is_off_is_told_and_changes_nothing(server, site):
    server.time = 3600.0
    site.connection().check_in(CheckIn())
    (skewed,) = (event for event in site.events if isinstance(event, Skewed))
    assert skewed.seconds == 3600.0 and "behind" in str(skewed)


def test_several_threads_share_one_session(server, site):
    connection = site.connection()
    threads = [threading.Thread(target=connection.check_in, args=(CheckIn(),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.check_ins) == 8 and len(server.sessions) == 1


def test_a_stopped_line_ends_a_request_that_is_held_and_waits_for_nothing(server, site):
    connection = site.connection()
    connection.check_in(CheckIn())
    held, go = threading.Event(), threading.Event()

    def hold():
        held.set()
        go.wait(20)
        raise Cut

    server.faults["POST /v1/checkin"] = [hold, cut]
    failures = []

    def ask():
        try:
            connection.check_in(CheckIn(wait_s=20))
        except StoppedError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert held.wait(10)
    site.line.stop()
    thread.join(10)
    go.set()
    assert not thread.is_alive() and len(failures) == 1
    with pytest.raises(StoppedError):
        connection.check_in(CheckIn())
    connection.check_in(CheckIn())  # one attempt is still made, so that a task can be given back


def test_every_byte_of_a_request_is_counted_by_what_it_was_for(server, site):
    connection = site.connection()
    connection.check_in(CheckIn())
    assert {kind for kind, _ in site.sent} == {"session", "enrolment", "check-in"}
    assert all(size > 50 for _, size in site.sent)


def test_an_answer_that_is_longer_than_messages_are_is_an_error(server, site):
    connection = site.connection()
    connection.check_in(CheckIn())
    server.reply = lambda *request: b"x" * (5 * 1024 * 1024)
    with pytest.raises(WireError, match="longer"):
        connection.check_in(CheckIn())


@pytest.mark.parametrize("status", [200, 302, 403])
def test_a_login_page_on_the_way_is_waited_out_once_the_server_is_known_and_told_before(server, site, status):
    def page():
        raise Page(status)

    connection = site.connection()
    server.faults["GET /v1/server"] = [page]
    with pytest.raises(ServerError, match="not as a Shoal server"):
        connection.check_in(CheckIn())
    connection.check_in(CheckIn())
    server.faults["POST /v1/checkin"] = [page, page, page]
    connection.check_in(CheckIn())
    assert len(site.waits) == 3


def test_a_blob_is_downloaded_part_by_part_and_goes_on_where_it_was_cut(server, site, tmp_path):
    data = bytes(range(256)) * 40
    manifest = server.add_blob(data, part_bytes=1000)
    connection, blobs = site.connection(), Blobs(tmp_path / "blobs")
    server.faults["GET /v1/blobs/.*"] = [None, None, None, Refused404]
    with pytest.raises(ServerError):
        download(connection, blobs, manifest, most_bytes=10**6)
    asked = len(server.requests)
    again = Blobs(tmp_path / "blobs")  # as after a restart
    server.faults["GET /v1/blobs/.*"] = [cut, ("after", cut), busy()]
    blob = download(connection, again, manifest, most_bytes=10**6)
    assert again.path(blob).read_bytes() == data
    gets = [request for request in server.requests[asked:] if "blobs" in request]
    assert len(gets) == 11 - 3 + 3
    download(connection, again, manifest, most_bytes=10**6)
    assert len([request for request in server.requests[asked:] if "blobs" in request]) == len(gets)


def Refused404():  # noqa: N802
    raise Refusal(404, "blob-unknown")


def test_parts_that_come_damaged_are_asked_for_again_and_in_the_end_refused(server, site, tmp_path):
    manifest = server.add_blob(b"0123456789" * 10, part_bytes=50)
    connection, blobs = site.connection(), Blobs(tmp_path / "blobs")
    whole = server.blobs[blob_id(manifest)]
    server.blobs[blob_id(manifest)] = whole[:60] + b"!" + whole[61:]
    with pytest.raises(WireError, match="part 1"):
        download(connection, blobs, manifest, most_bytes=1000)
    assert not blobs.has(blob_id(manifest))
    server.blobs[blob_id(manifest)] = whole
    download(connection, blobs, manifest, most_bytes=1000)
    with pytest.raises(WireError, match="larger"):
        download(connection, Blobs(tmp_path / "other"), manifest, most_bytes=99)


@pytest.mark.parametrize("size", [1000, 700_000])
def test_a_result_arrives_once_whatever_is_cut_and_its_verdict_can_be_asked_for_again(server, site, tmp_path, size):
    connection, blobs = site.connection(), Blobs(tmp_path / "blobs")
    data = bytes(i * 7 % 251 for i in range(size))
    manifest = blobs.put_bytes(data)
    server.faults["POST /v1/tasks/t1/upload"] = [cut, ("after", cut)]
    server.faults["PUT /v1/tasks/t1/parts/.*"] = [cut, ("after", cut), busy()]
    server.faults["POST /v1/tasks/t1/report"] = [cut, ("after", cut)]
    verdict = report(connection, blobs, "t1", manifest=manifest, train_s=0.5)
    assert verdict.verdict == "counted" and server.results["t1"] == (manifest, data)
    sent = sum(size for kind, size in site.sent if kind == "upload")
    assert report(connection, blobs, "t1", manifest=manifest, train_s=0.5) == verdict
    assert sum(size for kind, size in site.sent if kind == "upload") - sent < 1000, "nothing was sent again"


def test_an_upload_is_begun_again_when_the_server_has_forgotten_it(server, site, tmp_path):
    connection, blobs = site.connection(), Blobs(tmp_path / "blobs")
    manifest = blobs.put_bytes(bytes(i * 7 % 251 for i in range(600_000)))

    def forget():
        server.restart()
        server.offered.clear()
        raise Refusal(409, "not-offered")

    server.faults["PUT /v1/tasks/t1/parts/.*"] = [forget]
    assert report(connection, blobs, "t1", manifest=manifest, train_s=0.5).verdict == "counted"


def test_two_agents_never_share_a_home(tmp_path):
    home = Home(tmp_path)
    with home.held(), pytest.raises(StoreError, match="another agent works"), Home(tmp_path).held():
        pass
    with Home(tmp_path).held():
        pass


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    key = Home(tmp_path / "a").private_key
    assert Home(tmp_path / "a").private_key == key != Home(tmp_path / "b").private_key
    path = tmp_path / "a" / "key.pem"
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with pytest.raises(StoreError, match="chmod 600"):
        _ = Home(tmp_path / "a").private_key
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(StoreError, match="not a key"):
        _ = Home(tmp_path / "a").private_key


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 2, "client": "a"}'])
def test_an_identity_that_cannot_be_read_is_an_error_with_its_file(tmp_path, text):
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(StoreError, match=r"identity\.json"):
        _ = Home(tmp_path).identity


@pytest.mark.parametrize(
    "given", ["", "fl.example.org", "ftp://fl.example.org", "http://fl.example.org", "https://me:secret@fl.example.org"]
)
def test_a_server_is_named_by_an_https_url(given):
    with pytest.raises(SettingError) as caught:
        checked_url(given)
    assert "secret" not in str(caught.value)


# certificates


def certificate(*, name="localhost", days=(-1, 30), issuer=None):
    """A certificate and its key, signed by an issuer or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority" if issuer is None else "server")])
    now = datetime.datetime.now(datetime.UTC)
    begin, end = (now + datetime.timedelta(days=day) for day in days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer:
        alternatives = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(
            x509.SubjectAlternativeName(alternatives if name == "localhost" else alternatives[:1]), critical=False
        )
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer[1].public_key()), critical=False
        )
    else:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def authority():
    return certificate()


def secured(folder, signed):
    """What wraps a server's socket in TLS."""
    file = folder / "server.pem"
    key = signed[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(pem(signed[0]).encode() + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return lambda sock: context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)


def reach(tmp_path, server, signed, *, trusted, host="localhost"):
    with server.serving(secured(tmp_path, signed)) as url:
        secure = url.replace("http:", "https:").replace("127.0.0.1", host)
        site = Site(tmp_path / "home", secure, authority=trusted)
        try:
            return site.enrol()
        finally:
            site.line.close()
            site.ledger.close()


def test_a_certificate_of_the_pinned_authority_is_taken(tmp_path, server, authority):
    identity = reach(tmp_path, server, certificate(issuer=authority), trusted=pem(authority[0]))
    assert identity.client == "c1" and identity.server.startswith("https://localhost:")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda authority: certificate(days=(-30, -1), issuer=authority), "has expired"),
        (lambda authority: certificate(days=(1, 30), issuer=authority), "not valid yet"),
        (lambda authority: certificate(name="fl.example.org", issuer=authority), "not for localhost"),
        (lambda authority: certificate(issuer=certificate()), "SHA-256 fingerprint [0-9a-f]{64}"),
    ],
    ids=["expired", "of tomorrow", "another host", "another authority"],
)
def test_a_certificate_that_is_not_right_is_refused_with_what_to_do(tmp_path, server, authority, made, said):
    with pytest.raises(ServerError, match=said) as caught:
        reach(tmp_path, server, made(authority), trusted=pem(authority[0]))
    assert caught.value.code == "certificate" and server.requests == []


def test_a_server_that_is_down_or_speaks_no_tls_is_told_apart(tmp_path, server):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        site = Site(tmp_path / "a", f"https://127.0.0.1:{nobody.getsockname()[1]}", patient=False)
        with pytest.raises(ServerError, match="nothing answers"):
            site.enrol()
    with server.serving() as url:
        site = Site(tmp_path / "b", url.replace("http:", "https:"), patient=False)
        with pytest.raises(ServerError, match="does not speak TLS"):
            site.enrol()
