"""`GET /metrics` for Prometheus: the smallest web server that bounds what it reads and asks who is there."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from edge_deploy.core.errors import BadInput, DeviceError
from runtimes.serving.contracts import TlsFiles
from runtimes.serving.metrics import CONTENT_TYPE
from runtimes.serving.security import Tokens, check_exposure

__all__ = ["MetricsPage"]

MOST_HEADER_BYTES = 8192
MOST_CONNECTIONS = 32
READ_S = 5.0
PATHS = ("/metrics", "/metrics/")


class MetricsPage:
    """Answers one request a connection; lives in one event loop.

    Args:
        text: Makes the page.

    Raises:
        BadInput: The world could read it without showing who it is, or a TLS file cannot be read.
    """

    def __init__(
        self, text: Callable[[], bytes], *, host: str, port: int, tls: TlsFiles | None = None, tokens: Tokens
    ) -> None:
        check_exposure(host, tls=tls, has_tokens=bool(tokens), what="metrics")
        self._text, self._host, self.port = text, host, port
        self._tokens, self._tls = tokens, None if tls is None else _context(tls)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen.

        Raises:
            DeviceError: The address cannot be listened on.
        """
        try:
            self._server = await asyncio.start_server(
                self._connected, self._host, self.port, ssl=self._tls, limit=MOST_HEADER_BYTES
            )
        except OSError as error:
            raise DeviceError(f"metrics: {self._host}:{self.port} cannot be listened on ({error}).") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.ensure_future(self._answer(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._reply(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            writer.transport.abort()  # too slow, too long, or gone
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    def _reply(self, head: bytes) -> bytes:
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        if not self._tokens.admit(headers):
            return _page("401 Unauthorized", b"send Authorization: Bearer TOKEN\n")
        if len(words) != 3 or words[0] != "GET" or words[1].partition("?")[0] not in PATHS:
            return _page("404 Not Found", b"GET /metrics\n")
        return _page("200 OK", self._text())


def _page(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return head.encode() + b"\r\n" + body


def _context(tls: TlsFiles) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
        if tls.authority is not None:
            context.load_verify_locations(tls.authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"metrics: the TLS files cannot be used ({error}).") from error
    return context
