"""`make bench-proxy`: how near transfers through the shaped proxy come to what the link's arithmetic says."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np

from edge_deploy.bench.rows import markdown
from runtimes.shaping.link import constant_link
from runtimes.shaping.proxy import ShapedProxy

# Megabits per second and round trip in seconds: 3G to a local network.
LINKS = ((1, 0.1), (5, 0.05), (20, 0.03), (50, 0.02), (200, 0.01), (1000, 0.002))
SIZES = (1_000, 100_000, 1_000_000)
MOST_S = 3.0
REPEATS = 15


def main() -> None:
    """Print the table: medians of transfers with a one-byte answer, over a connection that stays open."""
    rows = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        for megabits, rtt_s in LINKS:
            link = constant_link(uplink_bps=megabits * 1e6, downlink_bps=megabits * 1e6, rtt_s=rtt_s)
            with ShapedProxy(listener.getsockname()[:2], link) as proxy, socket.create_connection(proxy.address) as one:
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for size in SIZES:
                    expected = 8 * (size + 9) / (megabits * 1e6) + rtt_s
                    if expected > MOST_S:
                        continue
                    taken = float(np.median([_transfer(one, size) for _ in range(REPEATS)]))
                    late = f"{(taken - expected) * 1e3:.2f}"
                    rows.append(
                        (
                            megabits,
                            f"{rtt_s * 1e3:g}",
                            size,
                            f"{expected * 1e3:.1f}",
                            late,
                            f"{taken / expected - 1:.1%}",
                        )
                    )
    print(markdown(("Mbit/s", "round trip, ms", "bytes", "expected, ms", "late by, ms", "error"), rows))


def _transfer(connection: socket.socket, size: int) -> float:
    begin = time.perf_counter()
    connection.sendall(size.to_bytes(8, "big") + bytes(size))
    connection.recv(1)
    return time.perf_counter() - begin


def _answer(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while len(head := connection.recv(8, socket.MSG_WAITALL)) == 8:
                left = int.from_bytes(head, "big")
                while left:
                    left -= len(connection.recv(min(left, 1 << 16)))
                connection.sendall(b"k")


if __name__ == "__main__":
    main()
