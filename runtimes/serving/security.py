"""Who may connect: TLS, mTLS and tokens of a server, and the refusal to listen to the world without either."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from runtimes.serving.channel import read_pem
from runtimes.serving.contracts import TlsFiles

__all__ = ["Tokens", "check_exposure", "is_loopback", "read_tokens", "server_credentials"]

SHORTEST_TOKEN = 16
LONGEST_HEADER = 4096


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can connect to the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, tls: TlsFiles | None, has_tokens: bool, what: str = "serve") -> tuple[str, ...]:
    """Refuse to listen where anybody may connect unless clients have to show who they are; returns warnings.

    Raises:
        BadInput: The address is not the loopback, and neither client certificates nor a token are asked for.
    """
    shows_certificates = tls is not None and tls.authority is not None
    if is_loopback(host):
        return ()
    if not shows_certificates and not has_tokens:
        raise BadInput(
            f"{what}: {host} can be reached from other machines and nothing says who may connect: ask clients for "
            "certificates (--tls-cert, --tls-key and --client-ca; `edge-deploy certs` makes some to try with) or for "
            "a token (--token-file), or listen on 127.0.0.1."
        )
    if tls is None:
        return (f"{what}: tokens and data travel in the clear to {host}; add --tls-cert and --tls-key.",)
    return ()


def server_credentials(tls: TlsFiles) -> Any:
    """gRPC's credentials made of the files; with an authority, clients must show a certificate that it signed.

    Raises:
        BadInput: A file cannot be read, or certificate and key are missing.
    """
    grpc = require("grpc", extra="serve")
    key, chain = read_pem(tls.key), read_pem(tls.certificate)
    if key is None or chain is None:
        raise BadInput("serve: TLS needs a certificate and its key: --tls-cert and --tls-key.")
    return grpc.ssl_server_credentials(
        [(key, chain)], root_certificates=read_pem(tls.authority), require_client_auth=tls.authority is not None
    )


def read_tokens(path: Path) -> tuple[str, ...]:
    """Tokens of a file, one a line; empty lines and lines that begin with # are comments.

    Raises:
        BadInput: The file cannot be read, holds none, or one that is too short to be secret.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as ASCII text ({error}).") from error
    found = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not found:
        raise BadInput(f"{path}: holds no token; put one on a line, e.g. of `openssl rand -hex 32`.")
    if any(len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token for token in found):
        raise BadInput(f"{path}: a token must be at least {SHORTEST_TOKEN} printable characters without spaces.")
    return found


class Tokens:
    """Bearer tokens that a server takes; none at all when it asks for none."""

    def __init__(self, tokens: Sequence[str] = ()) -> None:
        self._wanted = tuple(f"Bearer {token}".encode() for token in tokens)

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def admit(self, headers: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether these headers of a call bear one of the tokens; compared in constant time."""
        if not self._wanted:
            return True
        for name, value in headers:
            if name == "authorization":
                shown = value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)
                if len(shown) <= LONGEST_HEADER and any(hmac.compare_digest(shown, each) for each in self._wanted):
                    return True
        return False
