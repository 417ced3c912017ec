"""Certificates: one's own to begin with, or those that were given, with sentences for what is wrong with them."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.errors import SettingError
from shoal.whole_file import write_whole

AUTHORITY_DAYS, SERVER_DAYS, RENEWED_DAYS = 3650, 90, 30
"""How long an own authority and its server certificates last, and how long before the end they are made anew."""

_AUTHORITY, _SERVER = "authority", "server"


@dataclass(frozen=True)
class Tls:
    """Files for TLS: the server's certificate with those above it, and its key, both in PEM.

    `authority` is what clients need to trust the certificate if it is of one's own making, and `fingerprint` is its
    SHA-256, for people to compare.
    """

    certificate: Path
    key: Path
    authority: Path | None = None
    fingerprint: str = ""
    hosts: tuple[str, ...] = ()

    def renewed(self) -> Tls:
        """The same, after a certificate of one's own making that ends soon was made anew."""
        if self.authority is None:
            return self
        return development_certificates(self.authority.parent, self.hosts)

    def refresh(self, context: ssl.SSLContext) -> Tls:
        """Gives a context that is in use what is in the files now, renewed if need be: connections from now on have it.

        OSError or SettingError if it cannot be; then the context is as it was.
        """
        now = self.renewed()
        context.load_cert_chain(now.certificate, now.key)
        return now

    def context(self) -> ssl.SSLContext:
        """What sockets need: TLS 1.2 or newer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


def given_certificate(
    certificate: str | Path, key: str | Path, *, hosts: Iterable[str] = (), now: datetime | None = None
) -> Tls:
    """A certificate of somebody else's making, for `hosts`: those that it names itself if none are given.

    SettingError if it is expired, for another host, or not of this key.
    """
    first = _certificate(Path(certificate))
    here = Tls(Path(certificate), Path(key), hosts=tuple(hosts) or tuple(_hosts(first)))
    if _public(_key(here.key)) != first.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise SettingError(f"{here.key} is not the key of {here.certificate}: give the pair that was made together")
    now = now or datetime.now(UTC)
    if now >= first.not_valid_after_utc:
        raise SettingError(
            f"{here.certificate} expired on {first.not_valid_after_utc:%Y-%m-%d}: renew it, and start again"
        )
    if now < first.not_valid_before_utc:
        raise SettingError(
            f"{here.certificate} is valid from {first.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: look at the clock"
        )
    for host in here.hosts:
        if not _covers(first, host):
            raise SettingError(
                f"{here.certificate} is not for {host}, but for {', '.join(_hosts(first)) or 'no host'}: "
                "clients that ask for that name would turn away"
            )
    return here


def development_certificates(folder: str | Path, hosts: Iterable[str], *, now: datetime | None = None) -> Tls:
    """An authority of one's own and a certificate by it for these hosts, made in a folder or taken from it.

    The certificate is made anew 30 days before its end, and for other hosts; the authority, which clients have been
    given, only when it ends. Keys are readable for this user only. SettingError for files that are damaged.
    """
    folder, now, hosts = Path(folder), now or datetime.now(UTC), tuple(dict.fromkeys(hosts))
    if not hosts:
        raise SettingError("a certificate is for at least one host: name the server's, as clients will call it")
    folder.mkdir(parents=True, exist_ok=True)
    ca_files, files = _files(folder, _AUTHORITY), _files(folder, _SERVER)
    if not _lasts(ca_files[0], now, days=SERVER_DAYS):
        _make_authority(ca_files, now)
    authority, authority_key = _certificate(ca_files[0]), _key(ca_files[1])
    if not (_lasts(files[0], now, days=RENEWED_DAYS) and _fits(files, hosts, authority)):
        _make_server(files, hosts, authority, authority_key, now)
    return Tls(*files, authority=ca_files[0], fingerprint=_fingerprint(authority), hosts=hosts)


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.pem", folder / f"{name}-key.pem"


def _lasts(path: Path, now: datetime, *, days: int) -> bool:
    return path.exists() and _certificate(path).not_valid_after_utc > now + timedelta(days=days)


def _fits(files: tuple[Path, Path], hosts: tuple[str, ...], authority: x509.Certificate) -> bool:
    """Whether a certificate is of this authority, for these hosts, and its key is there."""
    certificate = _certificate(files[0])
    made_here = certificate.issuer == authority.subject and all(_covers(certificate, host) for host in hosts)
    return made_here and files[1].exists()


def _make_authority(files: tuple[Path, Path], now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial in the name keeps a new authority apart from the one before it.
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Shoal development authority {serial:x}"[:60])])
    usage = x509.KeyUsage(
        key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        _builder(name, name, key.public_key(), now, days=AUTHORITY_DAYS)
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(files, key, made)


def _make_server(
    files: tuple[Path, Path],
    hosts: tuple[str, ...],
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:60])])
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    made = (
        _builder(name, authority.subject, key.public_key(), now, days=SERVER_DAYS)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(above, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(files, key, made)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, *, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    # An hour back: other machines' clocks are behind.
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=days))


def _write(files: tuple[Path, Path], key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_whole(files[1], pem, mode=0o600)
    write_whole(files[0], certificate.public_bytes(Encoding.PEM))


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except OSError as error:
        raise SettingError(f"the certificate {path} cannot be read ({type(error).__name__}): name a PEM file") from None
    except ValueError:
        raise SettingError(
            f"{path} is no certificate in PEM form: it begins with -----BEGIN CERTIFICATE-----"
        ) from None


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingError(f"the key {path} cannot be read ({type(error).__name__}): name a PEM file") from None
    except (ValueError, TypeError):
        raise SettingError(f"{path} is no private key in PEM form, or it has a password: give one without") from None
    return key  # type: ignore[return-value] # another kind of key is only compared, and that every kind can


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def _covers(certificate: x509.Certificate, host: str) -> bool:
    names = _hosts(certificate)
    return host in names or (not _is_address(host) and f"*.{host.partition('.')[2]}" in names)


def _is_address(host: str) -> bool:
    return isinstance(_alternative(host), x509.IPAddress)


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
