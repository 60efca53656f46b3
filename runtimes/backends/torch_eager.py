"""Run exported PyTorch programs (.pt2) by PyTorch itself, as the reference that artifacts are compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput, MissingExtra, ToolchainError, Unsupported
from edge_deploy.core.require import require
from edge_deploy.core.tensor import DType, TensorInfo
from runtimes.calling import check_inputs, pick_signature
from runtimes.contracts import Kernels

__all__ = ["TorchSession", "open_model"]


class TorchSession:
    """A loaded .pt2 file; see `runtimes.contracts.Session`."""

    def __init__(self, path: Path, torch: Any, module: Any, signature: Signature, threads: int) -> None:
        self.signature = signature
        self.kernels = f"torch {torch.__version__} eager"
        self._path = path
        self._torch = torch
        self._module = module
        self._threads = threads

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; see `runtimes.contracts.Session.run`."""
        if self._module is None:
            raise BadInput(f"{self._path}: the session is closed; open a new one.")
        check_inputs(self.signature, inputs)
        torch = self._torch
        values = [torch.from_numpy(np.ascontiguousarray(inputs[info.name])) for info in self.signature.inputs]
        try:
            with _threads(torch, self._threads), torch.inference_mode():
                found = self._module(*values)
        except Exception as error:  # torch raises whatever an operator's kernel raises
            raise ToolchainError(f"{self._path}: inference failed: {error}") from error
        outputs = _flat(found)
        return {info.name: value.numpy() for info, value in zip(self.signature.outputs, outputs, strict=True)}

    def layer_seconds(self, inputs: Mapping[str, np.ndarray], *, runs: int) -> dict[str, float] | None:
        """None: eager execution knows operators, not the layers of an artifact."""
        check_inputs(self.signature, inputs)
        return None

    def close(self) -> None:
        """Free the model."""
        self._module = None


def open_model(
    path: Path,
    *,
    data_files: tuple[Path, ...],
    known: tuple[Signature, ...],
    signature: str | None,
    threads: int,
    kernels: Kernels,
) -> TorchSession:
    """Load a .pt2 file; see `runtimes.contracts.Backend.open_model`.

    Raises:
        BadInput: The file cannot be loaded.
        Unsupported: A kernel set that eager PyTorch does not have, or inputs that are no plain tensors.
        MissingExtra: PyTorch is not installed.
    """
    if kernels != "default":
        raise Unsupported(f"{path}: eager PyTorch has one kernel set; choose kernels = default, not {kernels}.")
    torch = require("torch", extra="run-executorch")
    with contextlib.suppress(MissingExtra):
        # Quantized programs use operators that torchao registers.
        require("torchao.quantization.pt2e", extra="export-executorch")
    try:
        program = torch.export.load(str(path))
        module = program.module()
    except Exception as error:  # torch raises whatever its archive and schema readers raise
        raise BadInput(f"{path}: torch {torch.__version__} cannot load it: {type(error).__name__}: {error}") from error
    found = _signature(path, program)
    return TorchSession(path, torch, module, pick_signature(path, known or (found,), signature), threads)


def _signature(path: Path, program: Any) -> Signature:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    output = next(node for node in program.graph.nodes if node.op == "output")
    values |= {node.name: node.meta.get("val") for node in output.all_input_nodes}
    return Signature(
        name="main",
        inputs=tuple(_info(path, name, values.get(name)) for name in program.graph_signature.user_inputs),
        outputs=tuple(_info(path, name, values.get(name)) for name in program.graph_signature.user_outputs),
    )


def _info(path: Path, name: str, value: Any) -> TensorInfo:
    kind = str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")
    if kind not in get_args(DType):
        raise Unsupported(f"{path}: {name} is of type {kind}: inputs and outputs must be plain tensors.")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorInfo(name=name, shape=shape, dtype=kind)  # type: ignore[arg-type]  # one of the literal's values


def _flat(found: Any) -> list[Any]:
    if isinstance(found, Mapping):
        return [value for entry in found.values() for value in _flat(entry)]
    if isinstance(found, (tuple, list)):
        return [value for entry in found for value in _flat(entry)]
    return [found]


@contextlib.contextmanager
def _threads(torch: Any, wanted: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if before != wanted:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        if before != wanted:
            torch.set_num_threads(before)
