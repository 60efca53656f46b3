"""Serve the live page of a run to browsers on this machine."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from edge_deploy.core.errors import BadInput, DeviceError
from edge_deploy.core.require import require
from edge_deploy.core.serde import to_json
from edge_deploy.report.live_page import POLICY, SCRIPT, live_page
from partitioner.live.status import Status

__all__ = ["Dashboard"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Dashboard:
    """The page at `address`, served by a thread until it is closed.

    Only this machine can reach it, and pages of other sites cannot read it: requests must name the loopback as their
    host.

    Args:
        status: Tells what the page shows; called for every look at it.
        port: 0 takes a free one.

    Raises:
        BadInput: The host is not the loopback.
        DeviceError: The address cannot be listened on.
        MissingExtra: starlette or uvicorn is not installed.
    """

    def __init__(self, title: str, status: Callable[[], Status], *, host: str = "127.0.0.1", port: int = 0) -> None:
        if host not in LOOPBACK:
            raise BadInput(
                f"--dashboard {host}:{port}: shows itself to this machine only; listen on 127.0.0.1 and forward the "
                f"port, e.g. ssh -L {port or 8080}:127.0.0.1:{port or 8080} DEVICE."
            )
        uvicorn = require("uvicorn", extra="dashboard")
        try:
            self._socket = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise DeviceError(f"--dashboard {host}:{port}: cannot be listened on ({error.strerror}).") from error
        self.address = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            _app(title, status), log_level="critical", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="dashboard", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """What to open in a browser."""
        host, port = self.address
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def close(self) -> None:
        """Stop; safe to call twice."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _app(title: str, status: Callable[[], Status]) -> Any:
    applications = require("starlette.applications", extra="dashboard")
    hosts = require("starlette.middleware.trustedhost", extra="dashboard")
    middleware = require("starlette.middleware", extra="dashboard")
    responses = require("starlette.responses", extra="dashboard")
    routing = require("starlette.routing", extra="dashboard")
    page = live_page(title)

    async def show(request: Any) -> Any:
        return responses.HTMLResponse(page, headers=HEADERS)

    async def script(request: Any) -> Any:
        return responses.Response(SCRIPT, media_type="text/javascript", headers=HEADERS)

    async def tell(request: Any) -> Any:
        return responses.Response(json.dumps(to_json(status())), media_type="application/json", headers=HEADERS)

    return applications.Starlette(
        routes=[
            routing.Route("/", show, methods=["GET"]),
            routing.Route("/live.js", script, methods=["GET"]),
            routing.Route("/status.json", tell, methods=["GET"]),
        ],
        middleware=[
            middleware.Middleware(hosts.TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
        ],
    )
