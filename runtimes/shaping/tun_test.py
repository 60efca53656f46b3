"""Packets go through the link between two namespaces, at its rate and delay, and nothing stays behind."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_deploy.core.errors import DeviceError
from runtimes.shaping.link import constant_link
from runtimes.shaping.tun import TunLink, can_make_tun


@pytest.fixture
def link():
    if can_make_tun():
        pytest.skip(can_make_tun())
    try:
        made = TunLink(constant_link(uplink_bps=1e8, downlink_bps=1e8, rtt_s=0.004))
    except DeviceError as error:  # root in a container that may not do this
        pytest.skip(str(error))
    with made:
        yield made


def test_bytes_arrive_unchanged_and_are_counted_with_their_headers(link):
    data = np.random.default_rng(0).bytes(200_000)
    listener = link.within(link.cloud, lambda: socket.create_server((link.cloud_address, 0)))
    got = []

    def receive():
        connection, _ = listener.accept()
        with connection:
            while part := connection.recv(1 << 16):
                got.append(part)
            connection.sendall(b"all")

    thread = threading.Thread(target=receive)
    thread.start()
    address = listener.getsockname()
    with link.within(link.edge, lambda: socket.create_connection(address, timeout=60)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(16) == b"all"
    thread.join()
    listener.close()
    assert b"".join(got) == data
    assert len(data) < link.counts["up"] < 1.5 * len(data)
    assert 0 < link.counts["down"] < link.counts["up"]


def test_namespaces_are_gone_after_closing(link):
    names = (link.edge, link.cloud)
    assert all((Path("/var/run/netns") / name).exists() for name in names)
    link.close()
    link.close()
    assert not any((Path("/var/run/netns") / name).exists() for name in names)
