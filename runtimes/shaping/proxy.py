"""A TCP proxy in user space that makes the loopback as slow as a link: rates, delay, outages, no root needed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any

from edge_deploy.core.errors import BadInput, DeviceError
from runtimes.shaping.lane import Lane, Passage
from runtimes.shaping.link import ShapedLink

__all__ = ["ShapedProxy"]

# Bytes that wait for their turn on the link; more stay with the sender, as with a router's queue.
QUEUE_BYTES = 256 * 1024
# Bytes of one connection and direction that the proxy holds at most, delay line included.
HELD_BYTES = 16 * 1024 * 1024
WRITE_BUFFER_BYTES = 256 * 1024
MOST_CONNECTIONS = 400  # select takes no file descriptor above 1023
START_TIMEOUT_S = 10.0
NEVER_S = 3600.0


class ShapedProxy:
    """Forwards connections to a target over a shaped link, in a thread of its own, until it is closed.

    Set-up of a connection itself is not delayed: keep connections open, as a program on a slow link should. Rates
    count the bytes that programs exchange; headers of TCP are not added.

    Args:
        target: Host and port that connections go on to.
        link: What to follow, from the moment of starting.
        host: Address to listen on; keep the loopback unless other machines shall connect.
        port: 0 takes a free one.
        cores: Keep the proxy's thread on these; empty for wherever the system puts it.

    Raises:
        DeviceError: The address cannot be listened on.
    """

    def __init__(
        self,
        target: tuple[str, int],
        link: ShapedLink,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cores: Sequence[int] = (),
    ) -> None:
        self._target, self._link, self._listen = target, link, (host, port)
        self._cores = tuple(cores)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: OSError | None = None
        self._ready = threading.Event()
        self._address = (host, port)
        self._thread = threading.Thread(target=self._serve, name="shaped-proxy", daemon=True)
        self._connections: set[asyncio.Task[None]] = set()
        self._counts = {"up": 0, "down": 0, "connections": 0, "refused": 0}
        self._thread.start()
        if not self._ready.wait(START_TIMEOUT_S) or self._failure is not None:
            raise DeviceError(f"shaped proxy: {host}:{port} cannot be listened on ({self._failure}).")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to connect to."""
        return self._address

    @property
    def counts(self) -> dict[str, int]:
        """Bytes delivered "up" and "down", "connections" accepted and "refused"."""
        return dict(self._counts)

    def follow(self, link: ShapedLink) -> None:
        """Follow another link from now on; what waits in the proxy leaves at its rates.

        Raises:
            BadInput: The proxy is closed.
        """
        self._call(self._follow(link))

    def restart(self) -> None:
        """Begin the link's entries again, as at the start."""
        self.follow(self._link)

    def close(self) -> None:
        """End all connections and stop listening; safe to call twice."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(START_TIMEOUT_S)

    def __enter__(self) -> ShapedProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None or not self._thread.is_alive():
            work.close()
            raise BadInput("shaped proxy: it is closed; start another one.")
        asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT_S)

    def _serve(self) -> None:
        if self._cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, set(self._cores))
        # select wakes up within microseconds of its timeout, epoll as asyncio calls it only within a millisecond.
        loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        try:
            loop.run_until_complete(self._run(loop))
        except OSError as error:
            self._failure = error
            self._ready.set()
        finally:
            loop.close()

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stopped, self._changed = asyncio.Event(), asyncio.Event()
        now = loop.time()
        self._begin_s = now
        self._lanes = {"up": Lane(self._link, "up", now_s=now), "down": Lane(self._link, "down", now_s=now)}
        with socket.create_server(self._listen, backlog=MOST_CONNECTIONS) as listener:
            listener.setblocking(False)
            self._address = listener.getsockname()[:2]
            self._loop = loop
            watch, accept = loop.create_task(self._watch_outages()), loop.create_task(self._accept(listener))
            self._ready.set()
            await self._stopped.wait()
            tasks = (watch, accept, *self._connections)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close their sockets in the turn after they were told to

    async def _follow(self, link: ShapedLink) -> None:
        now = asyncio.get_running_loop().time()
        self._link, self._begin_s = link, now
        for lane in self._lanes.values():
            lane.follow(link, now_s=now)
        # Everyone who waits looks at its times again.
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch_outages(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            elapsed = loop.time() - self._begin_s
            if self._link.on_outage == "reset" and self._link.is_down(elapsed):
                for task in self._connections:
                    task.cancel()
            later = [at for at in self._link.time_s if at > elapsed]
            await self._wait_until(self._begin_s + later[0] if later else math.inf)

    async def _wait_until(self, time_s: float) -> None:
        """Until that time, or until the link is changed, whichever comes first."""
        left = time_s - asyncio.get_running_loop().time()
        if left <= 0:
            return
        changed = self._changed
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, NEVER_S)):
                await changed.wait()

    async def _accept(self, listener: socket.socket) -> None:
        # Not asyncio's own server: one that is closed drops connections in the middle of being accepted, unclosed.
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            is_refused = self._link.on_outage == "reset" and self._link.is_down(loop.time() - self._begin_s)
            if is_refused or len(self._connections) >= MOST_CONNECTIONS:
                self._counts["refused"] += 1
                _reset(connection)
                connection.close()
                continue
            # asyncio does so for its own servers only; without it small answers wait 40 ms for an acknowledgement.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._counts["connections"] += 1
            task = loop.create_task(self._forward(connection))
            self._connections.add(task)
            # A task that is cancelled before it began never reaches its own clean-up.
            task.add_done_callback(lambda done, one=connection: self._forget(done, one))  # type: ignore[misc]  # bound now

    def _forget(self, task: asyncio.Task[None], connection: socket.socket) -> None:
        self._connections.discard(task)
        if task.cancelled():
            _reset(connection)
            connection.close()

    async def _forward(self, connection: socket.socket) -> None:
        both_ends: list[asyncio.StreamWriter] = []
        try:
            requests, writer = await asyncio.open_connection(sock=connection)
            both_ends.append(writer)
            answers, onward = await asyncio.open_connection(*self._target)
            both_ends.append(onward)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(requests, onward, "up"))
                both.create_task(self._pump(answers, writer, "down"))
        except* (OSError, asyncio.CancelledError):
            # A side that vanished, or an outage that resets: the other side sees a reset too.
            for one in both_ends:
                _reset(one.get_extra_info("socket"))
                one.transport.abort()
            if not both_ends:
                _reset(connection)
        finally:
            for one in both_ends:
                one.close()
            if not both_ends:
                connection.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: str) -> None:
        """One direction of one connection: read as the link has room, write when the bytes arrive."""
        waiting: deque[tuple[bytes, Passage]] = deque()
        held = _Held()
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(reader, waiting, held, direction))
            both.create_task(self._write(writer, waiting, held, direction))

    async def _read(
        self,
        reader: asyncio.StreamReader,
        waiting: deque[tuple[bytes, Passage]],
        held: _Held,
        direction: str,
    ) -> None:
        lane, now_s = self._lanes[direction], asyncio.get_running_loop().time
        while True:
            chunk = await reader.read(lane.chunk_bytes(now_s()))
            waiting.append((chunk, lane.admit(len(chunk), now_s=now_s())))
            held.change(len(chunk))
            if not chunk:
                return
            while (room_s := lane.has_room_s(QUEUE_BYTES)) > now_s():
                await self._wait_until(room_s)
            while held.bytes > HELD_BYTES:
                await held.changed.wait()

    async def _write(
        self,
        writer: asyncio.StreamWriter,
        waiting: deque[tuple[bytes, Passage]],
        held: _Held,
        direction: str,
    ) -> None:
        lane, now_s = self._lanes[direction], asyncio.get_running_loop().time
        writer.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        while True:
            while not waiting:
                await held.changed.wait()
            chunk, passage = waiting[0]
            while passage.arrives_s > now_s():
                await self._wait_until(passage.arrives_s)
            waiting.popleft()
            lane.arrived(passage)
            if not chunk:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
            self._counts[direction] += len(chunk)
            held.change(-len(chunk))


class _Held:
    """How many bytes a pump holds, and a way to wait until that changes."""

    def __init__(self) -> None:
        self.bytes = 0
        self.changed = asyncio.Event()

    def change(self, by: int) -> None:
        """Count, and wake up who waits."""
        self.bytes += by
        self.changed.set()
        self.changed = asyncio.Event()


def _reset(connection: Any) -> None:
    """Have the socket end by a reset when it is closed: without this the other side may see an orderly end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
