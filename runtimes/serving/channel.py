"""A client's connection: address, TLS, token, and what gRPC is told about reconnecting and bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from runtimes.serving.contracts import Endpoint, TlsFiles

__all__ = ["MOST_ANSWER_BYTES", "call_metadata", "client_options", "client_credentials"]

MOST_ANSWER_BYTES = 64 * 1024 * 1024
KEEPALIVE_S = 20.0
KEEPALIVE_TIMEOUT_S = 5.0


def client_options(endpoint: Endpoint) -> list[tuple[str, Any]]:
    """Channel options: a connection of its own, fast reconnecting, half-open connections noticed, no silent retries."""
    options: list[tuple[str, Any]] = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),  # whoever calls decides what is tried again, and counts it
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", MOST_ANSWER_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", int(KEEPALIVE_S * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_S * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    if endpoint.tls is not None and endpoint.tls.server_name:
        options.append(("grpc.ssl_target_name_override", endpoint.tls.server_name))
    return options


def client_credentials(tls: TlsFiles) -> Any:
    """gRPC's credentials made of the files.

    Raises:
        BadInput: A file cannot be read.
    """
    grpc = require("grpc", extra="run")
    return grpc.ssl_channel_credentials(
        root_certificates=read_pem(tls.authority),
        private_key=read_pem(tls.key),
        certificate_chain=read_pem(tls.certificate),
    )


def read_pem(path: Path | None) -> bytes | None:
    """The bytes of a PEM file.

    Raises:
        BadInput: It cannot be read, or is none.
    """
    if path is None:
        return None
    try:
        found = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    if b"-----BEGIN" not in found:
        raise BadInput(f"{path}: no PEM file; `edge-deploy certs` makes some to try with.")
    return found


def call_metadata(endpoint: Endpoint) -> tuple[tuple[str, str], ...]:
    """Headers of every call."""
    return (("authorization", f"Bearer {endpoint.token}"),) if endpoint.token else ()
