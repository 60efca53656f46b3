"""A server in this process: listens, serves, drains. `runtimes.serving.workers` runs several."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge_deploy.core.errors import DeviceError
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo
from runtimes.serving.batching import Turns
from runtimes.serving.contracts import TlsFiles
from runtimes.serving.limits import Limits
from runtimes.serving.metrics import Metrics
from runtimes.serving.offers import ANY, Offer, find_offers
from runtimes.serving.security import Tokens, check_exposure, server_credentials
from runtimes.serving.service import Service
from runtimes.serving.shelf import Loading, Shelf
from runtimes.serving.tensors import holder

__all__ = ["Server", "Serving", "ServerThread", "most_message_bytes"]

BESIDE_TENSORS = 64 * 1024
LARGEST_METADATA = 16 * 1024
STREAMS_PER_CONNECTION = 256
MANY_ROWS_BYTES = 4 * 1024 * 1024
LEAST_PING_S = 5.0
STUCK = 2.0  # times the longest that an answer may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Everything that one server process needs to know.

    Attributes:
        port: 0 takes a free one.
        tokens: That clients may show; empty where none is asked for.
        public_key: PEM file of the key that all manifests must be signed with.
        warm: Load all models at the start, as far as the memory budget goes, instead of at their first request.
        shares_port: Other processes listen on the same port.
    """

    artifacts: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 0
    tls: TlsFiles | None = None
    tokens: tuple[str, ...] = field(default=(), repr=False)
    public_key: Path | None = None
    limits: Limits = field(default_factory=Limits)
    loading: Loading = field(default_factory=Loading)
    warm: bool = False
    shares_port: bool = False


def most_message_bytes(offers: Sequence[Offer], limits: Limits) -> int:
    """The bound of one request: what was asked for, or what the largest model takes, 4 MiB at most unless one row is
    more.
    """
    if limits.message_bytes is not None:
        return limits.message_bytes
    most = 0
    for offer in offers:
        row = _input_bytes(offer.info.inputs)
        most = max(most, row, min(row * limits.rows, MANY_ROWS_BYTES) if ANY in offer.info.inputs[0].shape[:1] else 0)
    return BESIDE_TENSORS + most


def _input_bytes(inputs: Sequence[TensorInfo]) -> int:
    """Bytes of one row; sizes other than the batch that may be any count as much as many rows."""
    total = 0
    for info in inputs:
        if any(size < 0 for size in info.shape[1:]):
            return MANY_ROWS_BYTES
        total += math.prod(max(size, 1) for size in info.shape) * np.dtype(holder(info.dtype)).itemsize
    return total


class Server:
    """Serves in the running event loop between `start` and `stop`.

    Raises:
        BadInput: Artifacts that cannot be served, or an address that the world could use without showing who it is.
        MissingExtra: gRPC or prometheus_client is not installed.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self.warnings = check_exposure(serving.host, tls=serving.tls, has_tokens=bool(serving.tokens))
        self.offers = find_offers(serving.artifacts, public_key=serving.public_key)
        self.metrics = Metrics()
        self.port = serving.port
        self._credentials = None if serving.tls is None else server_credentials(serving.tls)
        self._grpc = require("grpc", extra="serve")
        self._server: Any = None
        self._service: Service | None = None
        self._shelf: Shelf | None = None
        self._threads: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            DeviceError: The address cannot be listened on.
        """
        serving = self._serving
        limits, cores = serving.limits, os.cpu_count() or 1
        turns = max(1, cores // serving.loading.threads)
        self._threads = ThreadPoolExecutor(turns + 2, thread_name_prefix="serve")  # two more for loading
        shelf = Shelf(
            self.offers,
            serving.loading,
            threads=self._threads,
            turns=Turns(turns),
            on_change=self.metrics.loaded,
            observer=self.metrics.inference,
        )
        self._shelf = shelf
        tokens = Tokens(serving.tokens)
        self._service = Service(
            self.offers, shelf, limits=limits, tokens=tokens, metrics=self.metrics, version=_version()
        )
        self._server = self._grpc.aio.server(
            options=_options(serving, most_message_bytes(self.offers, limits)), maximum_concurrent_rpcs=limits.at_once
        )
        self._server.add_generic_rpc_handlers(self._service.handlers())
        address = f"[{serving.host}]:{serving.port}" if ":" in serving.host else f"{serving.host}:{serving.port}"
        try:
            if self._credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise DeviceError(f"serve: {address} cannot be listened on ({error}).") from error
        if serving.warm:
            await self._warm(shelf)
        await self._server.start()

    async def stop(self) -> None:
        """Say that the server is not ready, answer what is under way, close everything. Safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        assert self._service is not None and self._shelf is not None and self._threads is not None
        self._service.drain()
        await server.stop(self._serving.limits.drain_s)
        try:
            async with asyncio.timeout(self._serving.limits.drain_s):
                await self._shelf.close()
        except TimeoutError:  # an inference that does not end
            self._threads.shutdown(wait=False, cancel_futures=True)
        else:
            self._threads.shutdown()

    def is_stuck(self) -> bool:
        """Whether an inference has been running for far longer than any client waits: only a new process helps."""
        since_s = None if self._shelf is None else self._shelf.running_since_s()
        return (
            since_s is not None and asyncio.get_running_loop().time() - since_s > STUCK * self._serving.limits.answer_s
        )

    async def _warm(self, shelf: Shelf) -> None:
        budget = self._serving.loading.memory_bytes
        for offer in self.offers:
            needed = offer.file_bytes * self._serving.loading.sessions
            if budget is not None and shelf.cost_bytes + needed > budget:
                return
            await shelf.load(offer)


class ServerThread:
    """A server in a thread of its own, for programs and tests that are not asyncio's; listens when it is made.

    Raises:
        BadInput: As `Server`.
        DeviceError: The address cannot be listened on.
    """

    def __init__(self, serving: Serving) -> None:
        self.server = Server(serving)
        self._started: Future[None] = Future()
        self._stopped: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="serving", daemon=True)
        self._thread.start()
        self._started.result()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    def close(self) -> None:
        """Drain and stop; safe to call twice."""
        if self._loop is not None and self._stopped is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()

    def __enter__(self) -> ServerThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.server.start()
        except BaseException as error:
            self._started.set_exception(error)
            raise
        self._started.set_result(None)
        try:
            await self._stopped.wait()
        finally:
            await self.server.stop()


def _version() -> str:
    try:
        return importlib.metadata.version("edge-deploy")
    except importlib.metadata.PackageNotFoundError:  # a bare checkout
        return "unknown"


def _options(serving: Serving, message_bytes: int) -> list[tuple[str, Any]]:
    limits = serving.limits
    return [
        ("grpc.so_reuseport", int(serving.shares_port)),
        ("grpc.max_receive_message_length", message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", LARGEST_METADATA // 2),
        ("grpc.absolute_max_metadata_size", LARGEST_METADATA),
        ("grpc.max_concurrent_streams", STREAMS_PER_CONNECTION),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1000)),
        ("grpc.http2.settings_timeout", int(limits.handshake_s * 1000)),
        ("grpc.max_connection_idle_ms", int(limits.idle_s * 1000)),
        ("grpc.keepalive_time_ms", int(limits.silent_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(limits.silent_s * 1000)),
        ("grpc.http2.min_ping_interval_without_data_ms", int(LEAST_PING_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
