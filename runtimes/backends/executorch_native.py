"""Run `.pte` programs by the C++ runner in a process of its own: files are mapped (LoadMode::Mmap) and never locked.

A table of any size costs the pages that are looked up; the process that holds them is small (no Python in it), and dies
alone of a damaged file. A call costs a tenth of a millisecond more than the session of the backend "executorch".
"""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported, error_from_json
from runtimes.backends.executorch import own_signatures
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels
from runtimes.formats.nibble_ptd import inflate, is_packed
from runtimes.formats.pte import read_pte
from runtimes.probes.machine import read_machine
from runtimes.runners.bundle import RUNNER, runner_bundle
from runtimes.runners.libraries import runtime_libraries

__all__ = ["NativeSession", "open_model", "runtime_version"]

PATIENCE_S = 5.0


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> NativeSession:
    """Start a runner and let it load the program; see `runtimes.contracts.Backend`.

    Raises:
        BadInput: The file cannot be loaded, or has no such signature.
        MissingExtra: No C++ compiler or no ExecuTorch is installed.
        Unsupported: Another kernel set than the only one is asked for.
    """
    if kernels != "default":
        raise Unsupported(f"--kernels {kernels}: ExecuTorch has one kernel set here; take default.")
    if len(data_files) > 1:
        raise BadInput(f"{path}: ExecuTorch takes one data file, {len(data_files)} were given.")
    chosen = pick_signature(path, known or own_signatures(read_pte(path)), signature)
    return NativeSession(path, chosen, threads=threads, data=data_files[0] if data_files else None)


def runtime_version() -> tuple[str, str]:
    """The package whose libraries run programs, and its version."""
    libraries = runtime_libraries("executorch", read_machine().isa)
    return libraries.name, libraries.version


class NativeSession:
    """A program in a runner; see `runtimes.contracts.Session`. Values travel through files in memory."""

    def __init__(self, path: Path, signature: Signature, *, threads: int = 1, data: Path | None = None) -> None:
        bundle = runner_bundle("executorch", read_machine().isa)
        self.signature = signature
        self.kernels = f"{bundle.runtime} XNNPACK+portable, native runner"
        self._path, self._data, self._threads = path.resolve(), None if data is None else data.resolve(), threads
        shared = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(
            prefix="edge-deploy-native-", dir=shared if shared.is_dir() else None, ignore_cleanup_errors=True
        )
        self._given, self._found = Path(self._folder.name, "in.bin"), Path(self._folder.name, "out.bin")
        self._shapes: tuple[tuple[int, ...], ...] = ()
        runner = next(file for file in bundle.files if file.name == RUNNER)
        self._log = Path(self._folder.name, "log.txt")
        with self._log.open("wb") as log:
            self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
                bundle.command(str(runner.parent)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )
        try:
            if data is not None and is_packed(data):
                self._data = Path(self._folder.name, "plain.ptd")
                self._data.write_bytes(inflate(data.read_bytes(), where=str(data)))
            self._load(tuple(tuple(max(size, 1) for size in info.shape) for info in signature.inputs))
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """Of the runner, e.g. to look at its memory; 0 once closed."""
        return self._process.pid if self._process is not None else 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference.

        Raises:
            BadInput: An input is missing, unknown or of another shape or type; or the session is closed.
            ToolchainError: The runner died.
        """
        if self._process is None:
            raise BadInput(f"{self._path}: the session is closed; open another.")
        check_inputs(self.signature, inputs)
        arrays = [np.ascontiguousarray(inputs[info.name]) for info in self.signature.inputs]
        shapes = tuple(array.shape for array in arrays)
        if shapes != self._shapes:
            self._load(shapes)
        self._given.write_bytes(b"".join(array.tobytes() for array in arrays))
        self._ask({"do": "infer", "file": str(self._given), "outputs_file": str(self._found), "sets": 1})
        return self._parsed(self._found.read_bytes())

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: the runner has no profiler; the backend "executorch" has."""
        return None

    def close(self) -> None:
        """End the runner."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None and process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._folder.cleanup()

    def _load(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        signature = self.signature
        answer = self._ask(
            {
                "do": "load",
                "model": str(self._path),
                "data": "" if self._data is None else str(self._data),
                "signature": signature.name,
                "threads": self._threads,
                "kernels": "default",
                "inputs": [info.name for info in signature.inputs],
                "outputs": [info.name for info in signature.outputs],
                "shapes": ["x".join(map(str, shape)) for shape in shapes],
            }
        )
        wanted = [
            (info.dtype, math.prod(shape) * np.dtype(info.dtype).itemsize)
            for info, shape in zip(signature.inputs, shapes, strict=True)
        ]
        found = [(each["type"], each["bytes"]) for each in answer["inputs"]]
        if wanted != found or len(answer["outputs"]) != len(signature.outputs):
            raise BadInput(f"{self._path}: takes {found} (type, bytes), its signature says {wanted}.")
        self._outputs: Sequence[Mapping[str, Any]] = answer["outputs"]
        self._shapes = shapes

    def _ask(self, request: Mapping[str, Any]) -> Any:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        line = b""
        with contextlib.suppress(BrokenPipeError):  # it has died; how is told below
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
            self.close()
            raise ToolchainError(f"{self._path}: the native runner died of it. {said}")
        answer = json.loads(line)
        if "error" in answer:
            raise error_from_json(answer["error"])
        if "failure" in answer:
            raise ToolchainError(f"{self._path}: native runner: {answer['failure']}")
        return answer["value"]

    def _parsed(self, data: bytes) -> dict[str, np.ndarray]:
        found, at = {}, 0
        for info, each in zip(self.signature.outputs, self._outputs, strict=True):
            kind, shape = np.dtype(each["type"]), tuple(int(size) for size in each["shape"])
            found[info.name] = np.frombuffer(data, kind, each["bytes"] // kind.itemsize, at).reshape(shape).copy()
            at += each["bytes"]
        return found
