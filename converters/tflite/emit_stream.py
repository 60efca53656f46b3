"""Write a TFLite flatbuffer whose large constants are streamed behind it instead of being built into it.

Below 2 GB the constants are still inline as the format sees it: a vector may stand anywhere after the table that
refers to it, so the root is built with one-byte vectors whose offsets are then pointed at the streamed ones. TFLite
Micro, which ignores offset buffers, reads such a file. Above 2 GB, `Buffer.offset` and `Buffer.size` refer to data
outside the root.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.recommender.resumable import Part, Staging, made_part, write_parts
from converters.tflite.flatbuffer import INLINE_LIMIT, schema
from edge_deploy.core.require import require

__all__ = ["Stream", "write_streamed"]

ALIGNMENT = 64
DATA_FIELD = 4  # vtable slot of Buffer.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The bytes of one constant, made in pieces when they are written."""

    size: int
    parts: Callable[[], Iterable[Part]]


def write_streamed(
    model: Any,
    streams: Mapping[int, Stream],
    path: Path,
    *,
    inline_limit: int = INLINE_LIMIT,
    staging: Staging | None = None,
) -> str:
    """Write `model` with the bytes of `streams` (by buffer index) and return the file's sha256.

    Args:
        inline_limit: Largest file whose constants are inline.
        staging: Where the file grows, so that an ended process can be followed by one that goes on.
    """
    inside = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    outside = sum(stream.size + 2 * ALIGNMENT for stream in streams.values())
    inline = inside + outside + _rest(model) < inline_limit
    if not inline:
        for index in streams:
            # Placeholders that are not the default, so that the slots exist and can be patched below.
            model.buffers[index].data, model.buffers[index].offset, model.buffers[index].size = None, 2, 2
    root = _pack(model)
    view = schema().Model.GetRootAs(root, 0)
    plan: list[tuple[int, Stream]] = []
    end = len(root)
    for index, stream in streams.items():
        start = -(-(end + 4) // ALIGNMENT) * ALIGNMENT
        table = view.Buffers(index)._tab
        if inline:
            field = table.Pos + table.Offset(DATA_FIELD)
            struct.pack_into("<I", root, field, start - 4 - field)
        else:
            tools = require("ai_edge_litert.tools.flatbuffer_utils", extra="run-tflite")
            tools.update_packed_buffer(view.Buffers(index), offset=start, size=stream.size)
        plan.append((start, stream))
        end = start + stream.size
    parts = [made_part(bytes(root))]
    at = len(root)
    for start, stream in plan:
        size = struct.pack("<I", stream.size if inline else 0)
        parts.append(made_part(b"\0" * (start - 4 - at) + size))
        own = list(stream.parts())
        if sum(part.size for part in own) != stream.size:
            raise AssertionError(f"a stream of {stream.size} bytes has parts of {sum(part.size for part in own)}")
        parts += own
        at = start + stream.size
    # Readers that check a vector's end against the file's like a multiple of four.
    parts.append(made_part(b"\0" * (-at % 4)))
    if staging is not None:
        staging = replace(staging, key=hashlib.sha256(staging.key.encode() + root).hexdigest())
    return write_parts(parts, path, staging=staging)


def _rest(model: Any) -> int:
    """Bytes of the root besides buffers, generously."""
    scales = 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            quantization = tensor.quantization
            if quantization is not None and quantization.scale is not None:
                scales += 12 * len(quantization.scale)
    return scales + (1 << 20)


def _pack(model: Any) -> bytearray:
    flatbuffers = require("flatbuffers", extra="run-tflite")
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytearray(builder.Output())
