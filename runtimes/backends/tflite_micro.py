"""Run .tflite files by TensorFlow Lite Micro's reference kernels, from its wheel; a child process tries each first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels
from runtimes.micro.arena import KERNELS, MicroArena, measure_arena
from runtimes.micro.interpreter import inlined_bytes, open_interpreter, said, version

__all__ = ["MicroSession", "open_model"]


class MicroSession:
    """A loaded model; see `runtimes.contracts.Session`.

    Attributes:
        arena: What it takes; the session's own arena is exactly as large.
    """

    def __init__(self, path: Path, interpreter: Any, signature: Signature, arena: MicroArena) -> None:
        self.signature = signature
        self.kernels = f"tflite-micro {version()} reference ({KERNELS})"
        self.arena = arena
        self._path = path
        self._interpreter = interpreter

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; see `runtimes.contracts.Session.run`."""
        if self._interpreter is None:
            raise BadInput(f"{self._path}: the session is closed; open a new one.")
        check_inputs(self.signature, inputs)
        for index, info in enumerate(self.signature.inputs):
            self._interpreter.set_input(np.ascontiguousarray(inputs[info.name]), index)
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ToolchainError(f"{self._path}: TensorFlow Lite Micro failed: {error}") from error
        return {
            info.name: np.array(self._interpreter.get_output(index)).reshape(info.shape)
            for index, info in enumerate(self.signature.outputs)
        }

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: the wheel has no profiler."""
        check_inputs(self.signature, inputs)
        return None

    def close(self) -> None:
        """Free the model."""
        self._interpreter = None


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> MicroSession:
    """Load a .tflite file; see `runtimes.contracts.Backend.open_model`. A child process runs it before, on zeros.

    Raises:
        BadInput: TensorFlow Lite Micro refuses the file; with its own words.
        ToolchainError: It ended the child process.
        Unsupported: A kernel set other than its own, more than one thread, or a size that only a call decides.
        MissingExtra: Its wheel, or what reads the file's schema, is not installed.
    """
    if kernels == "builtin":
        raise Unsupported(f"{path}: TensorFlow Lite Micro's wheel has reference kernels only, not {kernels}.")
    if threads != 1:
        raise Unsupported(f"{path}: TensorFlow Lite Micro runs on one thread; choose threads = 1, not {threads}.")
    from runtimes.formats.tflite import read_signatures

    found = known or read_signatures(path)
    chosen = _fixed(pick_signature(path, found, signature))
    arena = measure_arena(path)
    with said():
        interpreter = open_interpreter(inlined_bytes(path), where=str(path), arena_bytes=arena.total_bytes)
    return MicroSession(path, interpreter, chosen, arena)


def _fixed(signature: Signature) -> Signature:
    """The signature with an open batch as 1, which is how the file stores it."""
    from dataclasses import replace

    def fixed(infos: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(replace(info, shape=tuple(size if size != -1 else 1 for size in info.shape)) for info in infos)

    return replace(signature, inputs=fixed(signature.inputs), outputs=fixed(signature.outputs))
