"""Move the constants of a .tflite file inside the flatbuffer, where TFLite Micro looks for them.

Writers of larger files place constants behind the flatbuffer ("offset buffers"). TFLite Micro ignores those without a
word and computes with zeros, so a file must pass through here before any use on a microcontroller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.require import require
from runtimes.formats.tflite_file import TfliteFile, read_tflite
from runtimes.formats.tflite_lint import lint_problems

__all__ = ["inline_buffers"]

ALIGNMENT = 16
MOST_ROOT_BYTES = (1 << 31) - (1 << 16)


def inline_buffers(path: Path, out: Path) -> None:
    """Write the model at `path` to `out` with every constant inline; `out` appears in one rename, and may be `path`.

    Raises:
        BadInput: Not a sound .tflite file.
        Unsupported: The constants do not fit into one flatbuffer, or operators have options behind it as well.
        MissingExtra: The schema is not installed.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="run-tflite")
    flatbuffers = require("flatbuffers", extra="run-tflite")
    model = read_tflite(path)
    problems = lint_problems(model)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    content = path.read_bytes()
    result = content if not any(buffer.outside for buffer in model.buffers) else None
    if result is None:
        _check_size(path, model)
        root = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        for subgraph in root.subgraphs:
            for operator in subgraph.operators:
                if operator.largeCustomOptionsOffset:
                    raise Unsupported(f"{path}: a custom operator's options lie behind the flatbuffer as well.")
        for place, buffer in zip(model.buffers, root.buffers, strict=True):
            if place.outside:
                buffer.data = np.frombuffer(content, np.uint8, place.bytes, place.offset)
                buffer.offset = buffer.size = 0
        builder = _aligned_builder(flatbuffers.Builder)(1 << 20)
        builder.Finish(root.Pack(builder), file_identifier=b"TFL3")
        result = bytes(builder.Output())
    partial = out.with_name(f".{out.name}.partial")
    try:
        partial.write_bytes(result)
        partial.replace(out)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _aligned_builder(kind: type) -> type:
    """A flatbuffer builder that aligns byte vectors to 16, as the format demands of constants; Python's own gives 4."""

    class Aligned(kind):  # type: ignore[misc]  # the library has no types
        def CreateNumpyVector(self, x: np.ndarray) -> int:
            if x.dtype != np.uint8:
                return int(super().CreateNumpyVector(x))
            builder: Any = self
            builder.StartVector(1, x.size, ALIGNMENT)
            builder.head -= x.size
            builder.Bytes[builder.head : builder.head + x.size] = x.tobytes()
            return int(builder.EndVector())

    return Aligned


def _check_size(path: Path, model: TfliteFile) -> None:
    size = sum(buffer.bytes for buffer in model.buffers)
    if size > MOST_ROOT_BYTES:
        raise Unsupported(f"{path}: {size} bytes of constants: a flatbuffer holds at most {MOST_ROOT_BYTES}.")
