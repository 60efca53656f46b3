"""TensorFlow Lite Micro's interpreter from the wheel, with an arena that is large enough and what it says kept."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = ["MODULE", "inlined_bytes", "open_interpreter", "run_once", "said", "version"]

MODULE = "tflite_micro.python.tflite_micro.runtime"
EXTRA = "run-tflite-micro"
FIRST_ARENA = 1 << 20
LARGEST_ARENA = 1 << 30
TOO_SMALL = ("Failed to resize buffer", "Failed to allocate", "Requested:", "missing:")


def version() -> str:
    """The wheel's version, e.g. "0.dev20261023182759"."""
    try:
        return importlib.metadata.version("tflite-micro")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def inlined_bytes(path: Path) -> bytes:
    """The file with every constant inside the flatbuffer, where TensorFlow Lite Micro looks for it.

    Raises:
        BadInput: Not a sound .tflite file.
    """
    from runtimes.formats.tflite_inline import inline_buffers

    with tempfile.TemporaryDirectory(prefix="edge-deploy-tflm-") as folder:
        inline_buffers(path, Path(folder, "model.tflite"))
        return Path(folder, "model.tflite").read_bytes()


def open_interpreter(model: bytes, *, where: str, arena_bytes: int | None = None) -> Any:
    """An interpreter on these bytes; call it in a child process first.

    Args:
        arena_bytes: Exactly so large; None for as large as it needs to be.

    Raises:
        BadInput: It refuses the model; with its own words.
        MissingExtra: The wheel is not installed.
    """
    runtime = require(MODULE, extra=EXTRA)
    size = arena_bytes or FIRST_ARENA
    while True:
        with said() as words:
            try:
                return runtime.Interpreter.from_bytes(model, arena_size=size)
            except (RuntimeError, ValueError, IndexError) as error:
                failure = error
        text = "; ".join(words)
        is_small = any(sign in text for sign in TOO_SMALL)
        if arena_bytes is not None or not is_small or size >= LARGEST_ARENA:
            raise BadInput(f"{where}: TensorFlow Lite Micro refuses it: {text or failure}") from failure
        size *= 8


def run_once(interpreter: Any, *, where: str) -> None:
    """One inference on random values; ids are zeros, which every table has.

    Not on zeros alone: the wheel's kernels are built with assertions, and that of SOFTMAX ends the process where a
    thousand logits are all alike, which no real input makes them.

    Raises:
        BadInput: An operator refuses at run time; with its own words.
    """
    random = np.random.default_rng(0)
    with said() as words:
        index = 0
        while True:
            try:
                details = interpreter.get_input_details(index)
            except IndexError:
                break
            interpreter.set_input(_values(details["shape"], np.dtype(details["dtype"]), random), index)
            index += 1
        try:
            interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            failure: Exception | None = error
        else:
            failure = None
    if failure is not None:
        kept = [line for line in words if "out of range (length is" not in line]
        raise BadInput(f"{where}: TensorFlow Lite Micro refuses it: {'; '.join(kept) or failure}") from failure


def _values(shape: Any, kind: np.dtype[Any], random: np.random.Generator) -> Any:
    if kind.kind == "f":
        return random.standard_normal(shape).astype(kind)
    if kind.kind in "iu" and kind.itemsize <= 2:
        limits = np.iinfo(kind)
        return random.integers(limits.min, limits.max + 1, shape).astype(kind)
    return np.zeros(shape, kind)


@contextmanager
def said() -> Iterator[list[str]]:
    """What C code writes to standard error within the block, as lines."""
    lines: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(0)
            lines += [line.strip() for line in sink.read().decode(errors="replace").splitlines() if line.strip()]
