"""A certificate authority to try TLS with: keys and certificates of a server and of clients, in PEM files."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = ["Authority", "make_authority"]

DEFAULT_DAYS = 30
CLOCK_SKEW = datetime.timedelta(minutes=5)
LONGEST_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The files that `make_authority` wrote.

    Attributes:
        authority: Certificate that servers and clients check each other's with.
        server: Certificate and key of the server.
        clients: Certificate and key of each client, by its name.
    """

    authority: Path
    server: tuple[Path, Path]
    clients: dict[str, tuple[Path, Path]]


def make_authority(
    folder: Path,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    clients: Sequence[str] = ("client",),
    days: int = DEFAULT_DAYS,
) -> Authority:
    """Write `ca.pem`, `server.pem`, `server.key`, and `NAME.pem`, `NAME.key` of each client.

    For trying out, not for production: the authority's own key is thrown away, so that nothing more can be signed.

    Args:
        hosts: Names and addresses that clients may call the server by.
        days: After which everything expires.

    Raises:
        BadInput: A file is there already, or a name is no file name.
        MissingExtra: cryptography is not installed.
    """
    x509 = require("cryptography.x509", extra="serve")
    problems = [
        f"certs: client {name!r}: must be letters, digits, - and _, and none of ca and server."
        for name in clients
        if not name.replace("-", "").replace("_", "").isalnum() or name in ("ca", "server") or len(name) > LONGEST_NAME
    ]
    if not hosts:
        problems.append("certs: no host: name what clients call the server by.")
    if days < 1:
        problems.append(f"certs: days = {days}: must be at least 1.")
    files = {"ca.pem", *(f"{name}.{kind}" for name in ("server", *clients) for kind in ("pem", "key"))}
    problems += [
        f"{folder / name}: is there already; choose another folder."
        for name in sorted(files)
        if (folder / name).exists()
    ]
    if problems:
        raise BadInput(*problems)
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    made = _Maker(x509, begin=now - CLOCK_SKEW, end=now + datetime.timedelta(days=days))
    _write(folder / "ca.pem", made.authority_pem)
    names = [_host(x509, host) for host in hosts]
    server = made.signed(folder, "server", common_name=hosts[0], names=names, for_server=True)
    signed = {name: made.signed(folder, name, common_name=name, names=[], for_server=False) for name in clients}
    return Authority(authority=folder / "ca.pem", server=server, clients=signed)


class _Maker:
    """The authority while its key exists."""

    def __init__(self, x509: Any, *, begin: datetime.datetime, end: datetime.datetime) -> None:
        self._x509, self._begin, self._end = x509, begin, end
        self._hashes = require("cryptography.hazmat.primitives.hashes", extra="serve")
        self._serialization = require("cryptography.hazmat.primitives.serialization", extra="serve")
        self._curves = require("cryptography.hazmat.primitives.asymmetric.ec", extra="serve")
        self._key = self._new_key()
        self._name = self._named("edge-deploy test authority")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, self._hashes.SHA256())
        )
        self.authority_pem: bytes = certificate.public_bytes(self._serialization.Encoding.PEM)

    def signed(
        self, folder: Path, name: str, *, common_name: str, names: list[Any], for_server: bool
    ) -> tuple[Path, Path]:
        """Write the certificate and the key of one side."""
        x509, key = self._x509, self._new_key()
        uses = x509.oid.ExtendedKeyUsageOID
        builder = (
            self._builder(self._named(common_name), key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([uses.SERVER_AUTH if for_server else uses.CLIENT_AUTH]), critical=False
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, self._hashes.SHA256())
        encoding = self._serialization.Encoding.PEM
        _write(folder / f"{name}.pem", certificate.public_bytes(encoding))
        _write(
            folder / f"{name}.key",
            key.private_bytes(encoding, self._serialization.PrivateFormat.PKCS8, self._serialization.NoEncryption()),
            secret=True,
        )
        return folder / f"{name}.pem", folder / f"{name}.key"

    def _builder(self, subject: Any, key: Any) -> Any:
        return (
            self._x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._x509.random_serial_number())
            .not_valid_before(self._begin)
            .not_valid_after(self._end)
        )

    def _named(self, text: str) -> Any:
        return self._x509.Name([self._x509.NameAttribute(self._x509.oid.NameOID.COMMON_NAME, text[:LONGEST_NAME])])

    def _new_key(self) -> Any:
        return self._curves.generate_private_key(self._curves.SECP256R1())


def _host(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes, *, secret: bool = False) -> None:
    # Opened with its mode: a key is never readable by others, not even for a moment.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
