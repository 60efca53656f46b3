"""Bytes go through a shaped proxy unchanged, in order and in both directions, however many connections there are."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, DeviceError
from runtimes.shaping.link import ShapedLink, constant_link
from runtimes.shaping.proxy import ShapedProxy

FAST = constant_link(uplink_bps=8e9, downlink_bps=8e9, rtt_s=0.0)
DOWN = constant_link(uplink_bps=0, downlink_bps=0, rtt_s=0.0)
# What kernels keep in the buffers of four loopback sockets, at the most.
KERNEL_BYTES = 40_000_000


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


class Mirror:
    """Answers each connection with all that it sent, once it has sent all."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = self.listener.getsockname()[:2]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.answer, args=(connection,), daemon=True).start()

    def answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.sendall(read_all(connection))
        except OSError:
            return


@pytest.fixture(scope="module")
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.listener.close()


def through(proxy: ShapedProxy, data: bytes) -> bytes:
    def send() -> None:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)

    with socket.create_connection(proxy.address, timeout=30) as connection:
        sender = threading.Thread(target=send)
        sender.start()
        answer = read_all(connection)
        sender.join()
    return answer


@pytest.mark.parametrize("link", [FAST, constant_link(uplink_bps=4e8, downlink_bps=2e8, rtt_s=0.004, jitter_s=0.002)])
def test_bytes_come_back_unchanged_after_one_side_has_closed_its_half(mirror: Mirror, link: ShapedLink) -> None:
    data = np.random.default_rng(0).bytes(3_000_000)
    with ShapedProxy(mirror.address, link) as proxy:
        assert through(proxy, data) == data
        assert (proxy.counts["up"], proxy.counts["down"]) == (len(data), len(data))
        assert through(proxy, b"") == b""


def test_many_connections_at_once_do_not_mix(mirror: Mirror) -> None:
    with ShapedProxy(mirror.address, FAST) as proxy:
        open_ = [socket.create_connection(proxy.address, timeout=30) for _ in range(100)]
        for number, connection in enumerate(open_):
            connection.sendall(f"{number};".encode() * 1000)
            connection.shutdown(socket.SHUT_WR)
        for number, connection in enumerate(open_):
            with connection:
                assert read_all(connection) == f"{number};".encode() * 1000
        assert proxy.counts["connections"] == 100


def test_an_outage_holds_a_bounded_number_of_bytes_and_delivers_all_of_them_when_it_ends(mirror: Mirror) -> None:
    with ShapedProxy(mirror.address, DOWN) as proxy, socket.create_connection(proxy.address) as connection:
        connection.setblocking(False)
        block, sent = np.random.default_rng(1).bytes(1 << 16), 0
        while select.select([], [connection], [], 0.3)[1]:
            sent += connection.send(block[sent % len(block) :])
            assert sent < KERNEL_BYTES
        assert proxy.counts["up"] == 0
        proxy.follow(FAST)
        connection.settimeout(30)
        connection.shutdown(socket.SHUT_WR)
        expected = (block * (sent // len(block) + 1))[:sent]
        assert read_all(connection) == expected


def test_an_outage_that_resets_ends_connections_and_refuses_new_ones_until_the_link_is_back(mirror: Mirror) -> None:
    dead = ShapedLink(uplink_bps=(0.0,), downlink_bps=(0.0,), on_outage="reset")
    with ShapedProxy(mirror.address, FAST) as proxy:
        with socket.create_connection(proxy.address, timeout=30) as connection:
            connection.sendall(b"begun")
            proxy.follow(dead)
            with pytest.raises(ConnectionResetError):
                while connection.recv(16):  # what came back before the outage
                    pass
        with pytest.raises(ConnectionError), socket.create_connection(proxy.address, timeout=30) as connection:
            assert connection.recv(1) == b""
            raise ConnectionError("closed at once, which is a refusal too")
        proxy.follow(FAST)
        assert through(proxy, b"again") == b"again"
        assert proxy.counts["refused"] >= 1


def test_a_target_that_is_not_there_resets_the_connection_and_nothing_else(mirror: Mirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[:2]
    with (
        ShapedProxy(nobody, FAST) as proxy,
        pytest.raises(ConnectionError),  # the reset may come before connecting has returned
        socket.create_connection(proxy.address, timeout=30) as connection,
    ):
        connection.sendall(b"anyone?")
        if connection.recv(1) == b"":
            raise ConnectionError("closed")


def test_closing_ends_open_connections_and_a_closed_proxy_follows_nothing(mirror: Mirror) -> None:
    proxy = ShapedProxy(mirror.address, FAST)
    with socket.create_connection(proxy.address, timeout=30) as connection:
        connection.sendall(b"x")
        proxy.close()
        proxy.close()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    with pytest.raises(BadInput, match="closed"):
        proxy.follow(FAST)
    with pytest.raises(OSError):
        socket.create_connection(proxy.address, timeout=5)


def test_a_port_that_is_taken_is_said(mirror: Mirror) -> None:
    with pytest.raises(DeviceError, match="cannot be listened on"):
        ShapedProxy(mirror.address, FAST, port=mirror.address[1])
