"""Peers that mean harm, or are broken: what the tests and `make bench-live` let loose on a server."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

import numpy as np

__all__ = ["CONNECTIONS", "MUTATIONS", "connect", "mutated"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, DATA, PING = 4, 1, 0, 6
SEND_S = 5.0
MOST_COPIES = 2000


def _frame(kind: int, flags: int, stream: int, payload: bytes, *, length: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(payload) if length is None else length)[1:]
        + struct.pack(">BBI", kind, flags, stream)
        + payload
    )


def _flip(rng: np.random.Generator, valid: bytes) -> bytes:
    changed = bytearray(valid)
    for place in rng.integers(0, len(changed), rng.integers(1, 9)):
        changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(rng: np.random.Generator, valid: bytes) -> bytes:
    return valid[: rng.integers(len(valid))]


def _insert(rng: np.random.Generator, valid: bytes) -> bytes:
    place = int(rng.integers(len(valid)))
    return valid[:place] + rng.bytes(int(rng.integers(1, 64))) + valid[place:]


def _random(rng: np.random.Generator, valid: bytes) -> bytes:
    return rng.bytes(int(rng.integers(0, 2 * len(valid))))


def _twice(rng: np.random.Generator, valid: bytes) -> bytes:
    return valid * int(rng.integers(2, 5))


def _overlong(rng: np.random.Generator, valid: bytes) -> bytes:
    """A field that says it is longer than anything."""
    return valid + b"\x3a" + b"\xff" * int(rng.integers(1, 12)) + b"\x7f" + rng.bytes(8)


def _many(rng: np.random.Generator, valid: bytes) -> bytes:
    """Empty tensors, contents, parameters and outputs without end: two bytes each, an object each where parsed."""
    tag = bytes([int(rng.choice([0x22, 0x2A, 0x32, 0x3A])), 0])
    return valid + tag * int(rng.integers(1, MOST_COPIES))


def _deep(rng: np.random.Generator, valid: bytes) -> bytes:
    """Messages in messages in messages."""
    inner = b""
    for _ in range(int(rng.integers(1, 60))):
        if len(inner) > 100:
            break
        inner = b"\x2a" + bytes([len(inner)]) + inner
    return valid + inner


def _groups(rng: np.random.Generator, valid: bytes) -> bytes:
    """Groups, which protobuf 3 does not have, opened and not closed."""
    return valid + b"\x0b" * int(rng.integers(1, MOST_COPIES))


# What makes a message out of a valid one.
MUTATIONS: tuple[Callable[[np.random.Generator, bytes], bytes], ...] = (
    _flip,
    _cut,
    _insert,
    _random,
    _twice,
    _overlong,
    _many,
    _deep,
    _groups,
)


def mutated(rng: np.random.Generator, valid: bytes) -> bytes:
    """The message changed in one of many ways."""
    return MUTATIONS[int(rng.integers(len(MUTATIONS)))](rng, valid)


def _nothing(rng: np.random.Generator) -> bytes:
    return b""


def _half_a_preface(rng: np.random.Generator) -> bytes:
    return PREFACE[: rng.integers(1, len(PREFACE))]


def _no_settings(rng: np.random.Generator) -> bytes:
    return PREFACE


def _half_a_header(rng: np.random.Generator) -> bytes:
    """A request that begins and never goes on."""
    return PREFACE + _frame(SETTINGS, 0, 0, b"") + _frame(HEADERS, 0, 1, b"\x83\x86", length=400)


def _junk(rng: np.random.Generator) -> bytes:
    return rng.bytes(int(rng.integers(1, 4000)))


def _junk_frames(rng: np.random.Generator) -> bytes:
    frames = [
        _frame(int(rng.integers(12)), int(rng.integers(256)), int(rng.integers(4)), rng.bytes(int(rng.integers(64))))
        for _ in range(int(rng.integers(1, 40)))
    ]
    return PREFACE + _frame(SETTINGS, 0, 0, b"") + b"".join(frames)


def _web_page(rng: np.random.Generator) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def _tls_hello(rng: np.random.Generator) -> bytes:
    return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.bytes(200)


def _pings(rng: np.random.Generator) -> bytes:
    return PREFACE + _frame(SETTINGS, 0, 0, b"") + _frame(PING, 0, 0, bytes(8)) * int(rng.integers(1, 200))


# What a connection sends before it falls silent.
CONNECTIONS: tuple[Callable[[np.random.Generator], bytes], ...] = (
    _nothing,
    _half_a_preface,
    _no_settings,
    _half_a_header,
    _junk,
    _junk_frames,
    _web_page,
    _tls_hello,
    _pings,
)


def connect(rng: np.random.Generator, address: tuple[str, int]) -> socket.socket | None:
    """A connection that sends something and then nothing more; None where the server would not have it.

    The caller keeps it open, or closes it; half of them are closed by a reset.
    """
    try:
        peer = socket.create_connection(address, timeout=SEND_S)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        if rng.integers(2):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sendall(CONNECTIONS[int(rng.integers(len(CONNECTIONS)))](rng))
    return peer
