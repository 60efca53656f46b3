"""What a shaped link really gives: bytes that are always waiting one way, and a message of one byte both ways."""

from __future__ import annotations

import contextlib
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.link import RateCurve
from partitioner.simulator.validation import Achieved
from runtimes.shaping.link import ShapedLink, trace_link
from runtimes.shaping.proxy import ShapedProxy
from runtimes.shaping.tun import TunLink

__all__ = ["achieved"]

CHUNK = 16384
MESSAGES = 9
# The first bytes fill the queue of the proxy and the kernel's buffers; they are not looked at.
LATEST_START_S = 1.0
PATIENCE_S = 30.0


def achieved(name: str, trace: Trace, *, seconds: float, by_tun: bool) -> Achieved:
    """Both figures of the first `seconds` of a trace.

    The round trip is that of the trace's first moment.
    """
    link = trace_link(trace)
    with _connected(link, by_tun=by_tun) as (connection, received, restart):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        restart()
        taken = []
        if float(trace.values["uplink_bps"][0]) and float(trace.values["downlink_bps"][0]):
            for _ in range(MESSAGES):
                begun = time.monotonic()
                connection.sendall(b"?")
                connection.recv(1)
                taken.append(time.monotonic() - begun)
        restart()
        begun = time.monotonic()
        connection.settimeout(0.2)
        skipped_s = min(LATEST_START_S, seconds / 4)
        block = bytes([1]) * CHUNK
        moments: list[tuple[float, int]] = []
        while (now_s := time.monotonic() - begun) < seconds:
            with contextlib.suppress(TimeoutError):
                connection.send(block)
            moments.append((now_s, received[0]))
    times = np.array([moment for moment, _ in moments])
    counts = np.array([count for _, count in moments])
    first = int(np.searchsorted(times, skipped_s))
    last = len(times) - 1
    span_s = float(times[last] - times[first]) if last > first else 0.0
    curve = RateCurve(trace.time_s, trace.values["uplink_bps"])
    asked = float(curve.carried(times[last]) - curve.carried(times[first])) if span_s else 0.0
    return Achieved(
        link=name,
        asked_bps=asked / span_s if span_s else 0.0,
        achieved_bps=8 * float(counts[last] - counts[first]) / span_s if span_s else 0.0,
        asked_rtt_s=float(trace.values["rtt_s"][0]),
        achieved_rtt_s=statistics.median(taken) if taken else 0.0,
    )


@contextmanager
def _connected(link: ShapedLink, *, by_tun: bool) -> Iterator[tuple[socket.socket, list[int], Callable[[], object]]]:
    """A connection over a link of its own, what came out of it, and a way to begin the link again."""
    with contextlib.ExitStack() as stack:
        if by_tun:
            tun = stack.enter_context(TunLink(link))
            listener = tun.within(tun.cloud, lambda: socket.create_server((tun.cloud_address, 0)))
            received = stack.enter_context(_receiver(listener))
            address = listener.getsockname()[:2]
            connection = tun.within(tun.edge, lambda: socket.create_connection(address, timeout=PATIENCE_S))
            restart: Callable[[], object] = partial(tun.follow, link)
        else:
            listener = socket.create_server(("127.0.0.1", 0))
            received = stack.enter_context(_receiver(listener))
            proxy = stack.enter_context(ShapedProxy(listener.getsockname()[:2], link))
            connection = socket.create_connection(proxy.address, timeout=PATIENCE_S)
            restart = proxy.restart
        yield stack.enter_context(connection), received, restart


@contextmanager
def _receiver(listener: socket.socket) -> Iterator[list[int]]:
    """Counts what comes, and answers each question mark."""
    received = [0]

    def receive() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while part := connection.recv(1 << 16):
                    received[0] += len(part)
                    if part == b"?":
                        connection.sendall(b"!")

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        listener.close()
        thread.join(1.0)
