"""Arrays by name over a byte stream: length-prefixed, bounded, nothing but shapes and raw bytes."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput, DeviceError

__all__ = ["Frame", "decode", "encode", "header", "receive"]

MOST_HEADER_BYTES = 1 << 20
MOST_BODY_BYTES = 1 << 30
PREFIX_BYTES = 4
# What may travel; object arrays would be programs.
KINDS = "biuf"


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes as they arrived: the header's JSON, the values of all arrays one after the other, and how many in all."""

    header: dict[str, Any]
    body: memoryview
    wire_bytes: int


def encode(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, ...]:
    """The values of each array, to send after their `header`.

    Raises:
        BadInput: An array is of a type that does not travel, or all of them are too large.
    """
    problems = [
        f"tensor {name}: type {value.dtype} cannot be sent."
        for name, value in arrays.items()
        if value.dtype.kind not in KINDS
    ]
    if sum(value.nbytes for value in arrays.values()) > MOST_BODY_BYTES:
        problems.append(f"tensors {', '.join(arrays)}: more than {MOST_BODY_BYTES} bytes.")
    if problems:
        raise BadInput(*problems)
    return tuple(value.tobytes() for value in arrays.values())


def header(arrays: Mapping[str, np.ndarray], **extra: Any) -> bytes:
    """What goes before the values: names, types and shapes, and plain JSON values that travel along."""
    listed = [[name, value.dtype.str, list(value.shape)] for name, value in arrays.items()]
    text = json.dumps({"tensors": listed, **extra}).encode()
    return len(text).to_bytes(PREFIX_BYTES, "big") + text


def receive(connection: socket.socket) -> Frame | None:
    """The next frame; None when the other side has closed.

    Raises:
        DeviceError: The stream ends within a frame, or does not hold frames.
    """
    first = connection.recv(1)
    if not first:
        return None
    size = int.from_bytes(first + bytes(_exactly(connection, PREFIX_BYTES - 1)), "big")
    if size > MOST_HEADER_BYTES:
        raise DeviceError(f"split stream: a header of {size} bytes: at most {MOST_HEADER_BYTES}.")
    try:
        told = json.loads(bytes(_exactly(connection, size)))
        body = sum(_bytes_of(kind, shape) for _, kind, shape in told["tensors"])
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"split stream: not a frame ({type(error).__name__}: {error}).") from error
    if body > MOST_BODY_BYTES:
        raise DeviceError(f"split stream: tensors of {body} bytes: at most {MOST_BODY_BYTES}.")
    return Frame(told, _exactly(connection, body), size + PREFIX_BYTES + body)


def decode(frame: Frame) -> dict[str, np.ndarray]:
    """The arrays, as views of the frame's bytes."""
    arrays, at = {}, 0
    for name, kind, shape in frame.header["tensors"]:
        size = _bytes_of(kind, shape)
        arrays[name] = np.frombuffer(frame.body[at : at + size], dtype=kind).reshape(shape)
        at += size
    return arrays


def _bytes_of(kind: str, shape: list[int]) -> int:
    dtype = np.dtype(kind)
    if dtype.kind not in KINDS or any(not isinstance(size, int) or size < 0 for size in shape):
        raise ValueError(f"tensor of type {kind} and shape {shape}")
    return dtype.itemsize * math.prod(shape)


def _exactly(connection: socket.socket, size: int) -> memoryview:
    found = memoryview(bytearray(size))
    got = 0
    while got < size:
        count = connection.recv_into(found[got:], size - got)
        if count == 0:
            raise DeviceError(f"split stream: ended {size - got} bytes before the end of a frame.")
        got += count
    return found
