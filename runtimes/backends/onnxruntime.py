"""Run .onnx files by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import DType, TensorInfo
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels

__all__ = ["OnnxSession", "open_model"]

DTYPES: dict[str, DType] = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxSession:
    """A loaded .onnx file; see `runtimes.contracts.Session`."""

    def __init__(self, path: Path, session: Any, signature: Signature, kernels: str) -> None:
        self.signature = signature
        self.kernels = kernels
        self._path = path
        self._session = session
        self._outputs = [info.name for info in signature.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; see `runtimes.contracts.Session.run`."""
        if self._session is None:
            raise BadInput(f"{self._path}: the session is closed; open a new one.")
        check_inputs(self.signature, inputs)
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:  # its exception classes are private and change with versions
            raise ToolchainError(f"{self._path}: inference failed: {error}") from error
        return dict(zip(self._outputs, values, strict=True))

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: its profiler writes traces to files, which no session of ours reads yet."""
        check_inputs(self.signature, inputs)
        return None

    def close(self) -> None:
        """Free the model."""
        self._session = None


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> OnnxSession:
    """Load an .onnx file; see `runtimes.contracts.Backend.open_model`. Its external weights lie beside it.

    Raises:
        BadInput: The file cannot be loaded.
        Unsupported: A kernel set or a type that this runtime does not have.
        MissingExtra: ONNX Runtime is not installed.
    """
    if kernels != "default":
        raise Unsupported(f"{path}: ONNX Runtime has one kernel set; choose kernels = default, not {kernels}.")
    runtime = require("onnxruntime", extra="run-onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes are private and change with versions
        raise BadInput(f"{path}: ONNX Runtime {runtime.__version__} cannot load it: {error}") from error
    found = Signature(
        name="main",
        inputs=tuple(_info(entry) for entry in session.get_inputs()),
        outputs=tuple(_info(entry) for entry in session.get_outputs()),
    )
    chosen = pick_signature(path, known or (found,), signature)
    return OnnxSession(path, session, chosen, f"onnxruntime {runtime.__version__} CPU")


def _info(entry: Any) -> TensorInfo:
    if entry.type not in DTYPES:
        raise Unsupported(f"tensor {entry.name}: type {entry.type}: must be one of {', '.join(DTYPES)}.")
    # Symbolic dimensions have names, or none; both stand for any size.
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in entry.shape)
    return TensorInfo(name=entry.name, shape=shape, dtype=DTYPES[entry.type])
