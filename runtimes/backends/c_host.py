"""Run a C project on this machine: compiled by its C compiler into a library that no other session shares."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, MissingExtra, ToolchainError, Unsupported
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels
from runtimes.formats.c_source import read_signatures

__all__ = ["CSession", "open_model"]

COMPILE_S = 300.0
FLAGS = ("-std=c99", "-O2", "-fPIC", "-shared")
NOT_PART_OF_IT = ("selftest.c",)


class CSession:
    """A compiled project; see `runtimes.contracts.Session`."""

    def __init__(self, path: Path, signature: Signature, library: Any, kernels: str) -> None:
        self.signature = signature
        self.kernels = kernels
        self._path = path
        self._library = library

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; see `runtimes.contracts.Session.run`."""
        if self._library is None:
            raise BadInput(f"{self._path}: the session is closed; open a new one.")
        check_inputs(self.signature, inputs)
        for index, info in enumerate(self.signature.inputs):
            value = np.ascontiguousarray(inputs[info.name])
            ctypes.memmove(self._library.model_input(index), value.ctypes.data, value.nbytes)
        if self._library.model_invoke():
            raise BadInput(f"{self._path}: an id is out of range.")
        found = {}
        for index, info in enumerate(self.signature.outputs):
            value = np.empty(info.shape, info.dtype)
            ctypes.memmove(value.ctypes.data, self._library.model_output(index), value.nbytes)
            found[info.name] = value
        return found

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: a C project has no profiler."""
        check_inputs(self.signature, inputs)
        return None

    def close(self) -> None:
        """Free the model; the library's memory stays with the process until it ends."""
        self._library = None


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> CSession:
    """Compile and load the project of a model.c; see `runtimes.contracts.Backend.open_model`. It runs on one thread.

    Raises:
        BadInput: The project has no model.h.
        MissingExtra: There is no C compiler.
        ToolchainError: The compiler refused it.
        Unsupported: A kernel set; a project has one.
    """
    if kernels != "default":
        raise Unsupported(f"{path}: a C project has one kernel set; choose kernels = default, not {kernels}.")
    found = read_signatures(path)
    chosen = pick_signature(path, known or found, signature)
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise MissingExtra(f"{path}: running a C project here needs a C compiler; install gcc or clang, or set CC.")
    sources = sorted(each for each in path.parent.glob("*.c") if each.name not in NOT_PART_OF_IT)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-c-") as folder:
        file = Path(folder) / "model.so"
        _compile([compiler, *FLAGS, *map(str, sources), "-lm", "-o", str(file)], path)
        try:
            library = ctypes.CDLL(str(file))
        except OSError as error:
            raise ToolchainError(f"{path}: the compiled library cannot be loaded: {error}") from error
    for function, answer in (("model_input", ctypes.c_void_p), ("model_output", ctypes.c_void_p)):
        getattr(library, function).restype = answer
        getattr(library, function).argtypes = [ctypes.c_int]
    return CSession(path, chosen, library, f"generated C by {Path(compiler).name}")


def _compile(command: list[str], path: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S, check=False)
    except OSError as error:
        raise MissingExtra(f"{path}: the C compiler {command[0]} cannot be started ({error.strerror}).") from error
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{path}: the C compiler gave no answer within {COMPILE_S:.0f} s.") from error
    if done.returncode:
        raise ToolchainError(f"{path}: the C compiler refused it: {done.stderr.strip()[-1500:]}")
