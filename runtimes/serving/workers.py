"""Several server processes on one port: started, watched, replaced when they die, drained on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_deploy.core.errors import BadInput, DeviceError, error_from_json
from edge_deploy.core.serde import dumps
from runtimes.serving.metrics import collect_workers
from runtimes.serving.metrics_page import MetricsPage
from runtimes.serving.offers import find_offers
from runtimes.serving.security import Tokens, check_exposure
from runtimes.serving.server import Serving

__all__ = ["Started", "Workers"]

START_S = 120.0
KILL_AFTER_S = 5.0  # beyond the time to drain
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
HEALTHY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Where the workers listen."""

    host: str
    port: int
    metrics_port: int | None


class Workers:
    """Processes that share a port; lives in one event loop.

    Args:
        metrics: Host and port of the page for Prometheus; None for none.
        told: Called with what is worth telling, such as a worker that died.

    Raises:
        BadInput: Artifacts that cannot be served, or an address the world could use without showing who it is.
    """

    def __init__(
        self,
        serving: Serving,
        *,
        count: int = 1,
        metrics: tuple[str, int] | None = None,
        told: Callable[[str], None] = lambda text: None,
    ) -> None:
        if count < 1:
            raise BadInput(f"workers = {count}: must be at least 1.")
        if count > 1 and not hasattr(socket, "SO_REUSEPORT"):
            raise BadInput(f"workers = {count}: this system cannot share a port between processes; take 1.")
        self.warnings = check_exposure(serving.host, tls=serving.tls, has_tokens=bool(serving.tokens))
        self.offers = find_offers(serving.artifacts, public_key=serving.public_key)
        self.restarts = 0
        self._serving, self._count, self._told = serving, count, told
        self._folder = tempfile.TemporaryDirectory(prefix="edge-deploy-serve-")
        self._reserved: socket.socket | None = None
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._page = None
        if metrics is not None:
            self._page = MetricsPage(
                lambda: collect_workers(Path(self._folder.name)),
                host=metrics[0],
                port=metrics[1],
                tls=serving.tls,
                tokens=Tokens(serving.tokens),
            )

    async def start(self) -> Started:
        """Start all; returns when they listen.

        Raises:
            DeviceError: The address cannot be listened on, or a worker does not start.
        """
        try:
            self._reserve()
            first = [await self._spawn() for _ in range(self._count)]
            if self._page is not None:
                await self._page.start()
        except BaseException:
            await self.stop()
            raise
        self._keepers = [asyncio.ensure_future(self._keep(process)) for process in first]
        page = self._page
        return Started(
            host=self._serving.host, port=self._serving.port, metrics_port=None if page is None else page.port
        )

    async def stop(self) -> None:
        """Have all workers answer what is under way and end. Safe to call twice."""
        self._is_stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for process in tuple(self._processes.values()):
            _signal(process, signal.SIGTERM)
        patience_s = self._serving.limits.drain_s + KILL_AFTER_S
        await asyncio.gather(*(_ended(process, patience_s) for process in self._processes.values()))
        self._processes.clear()
        if self._page is not None:
            await self._page.stop()
        if self._reserved is not None:
            self._reserved.close()
        self._folder.cleanup()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the workers that run."""
        return tuple(self._processes)

    def _reserve(self) -> None:
        """Hold the port without listening on it, so that workers may come and go."""
        host, port = self._serving.host, self._serving.port
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._reserved = socket.socket(family, socket.SOCK_STREAM)
            if hasattr(socket, "SO_REUSEPORT"):
                self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._reserved.bind((host, port))
        except OSError as error:
            raise DeviceError(f"serve: {host}:{port} cannot be listened on ({error}).") from error
        found = self._reserved.getsockname()[1]
        if not hasattr(socket, "SO_REUSEPORT"):
            self._reserved.close()
        self._serving = replace(self._serving, port=found, shares_port=hasattr(socket, "SO_REUSEPORT"))

    async def _spawn(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "runtimes.serving.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._folder.name, "PYTHONPATH": _import_path()},
            # Ctrl-C reaches the parent alone, which has everybody drain.
            start_new_session=True,
        )
        self._processes[process.pid] = process
        assert process.stdin is not None and process.stdout is not None
        # Not on the command line, which everybody on the machine can read: it may hold tokens.
        process.stdin.write(" ".join(dumps(self._serving).split("\n")).encode() + b"\n")
        try:
            async with asyncio.timeout(START_S):
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (TimeoutError, OSError) as error:
            raise await self._failed(process, f"did not start within {START_S:g} s") from error
        if not line:
            raise await self._failed(process, "ended before it listened")
        said = json.loads(line)
        if "error" in said:
            await _ended(process, KILL_AFTER_S)
            self._processes.pop(process.pid, None)
            raise error_from_json(said["error"])
        return process

    async def _failed(self, process: asyncio.subprocess.Process, what: str) -> DeviceError:
        _signal(process, signal.SIGKILL)
        code = await process.wait()
        self._processes.pop(process.pid, None)
        return DeviceError(f"serve: a worker {what} (exit code {code}); its messages stand above.")

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Replace the worker whenever it ends."""
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            begun_s = loop.time()
            code = await process.wait()
            self._forget(process.pid)
            self.restarts += 1
            self._told(f"worker {process.pid} ended with code {code}; another one is started.")
            pause_s = FIRST_PAUSE_S if loop.time() - begun_s > HEALTHY_S else min(2 * pause_s, LONGEST_PAUSE_S)
            while True:
                await asyncio.sleep(pause_s)
                try:
                    process = await self._spawn()
                    break
                except (DeviceError, BadInput) as error:
                    self._told(f"a worker cannot be started: {error}")
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _forget(self, pid: int) -> None:
        self._processes.pop(pid, None)
        # Gauges of the dead no longer count; its counters do.
        for path in Path(self._folder.name).glob(f"gauge_live*_{pid}.db"):
            with contextlib.suppress(OSError):
                path.unlink()


def _import_path() -> str:
    """Ours first: from a bare checkout the worker must find the same packages as this process."""
    home = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH", "")])])


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


async def _ended(process: asyncio.subprocess.Process, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        _signal(process, signal.SIGKILL)
        await process.wait()
