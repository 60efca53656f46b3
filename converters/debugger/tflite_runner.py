"""Run the first signature of a TFLite file and read any tensor of it as real values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.debugger.contracts import Grid
from converters.debugger.tflite_edit import first_graph
from converters.tflite.flatbuffer import dtype_name, read_model
from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.require import require

__all__ = ["Runner", "grid_of"]

_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


class Runner:
    """One file with its interpreter.

    Attributes:
        graph: The subgraph of the first signature.
        inputs: Index of the tensor behind each input of the signature.
    """

    def __init__(self, path: Path, *, keeps_all: bool) -> None:
        """Load a file.

        Args:
            keeps_all: Keep every tensor's value, which the builtin kernels can; without, the default delegate runs.

        Raises:
            ToolchainError: The interpreter refuses the file.
        """
        runtime = require("ai_edge_litert.interpreter", extra="run-tflite")
        model = read_model(path)
        definition = model.signatureDefs[0]
        self.path, self.graph = path, first_graph(model)
        self.inputs = {_text(entry.name): int(entry.tensorIndex) for entry in definition.inputs}
        self._subgraph = int(definition.subgraphIndex)
        kinds = runtime.OpResolverType
        resolver = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keeps_all else kinds.AUTO
        try:
            self._interpreter = runtime.Interpreter(
                str(path),
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=keeps_all,
                num_threads=1,
            )
            self._run = self._interpreter.get_signature_runner(_text(definition.signatureKey))
        except (ValueError, RuntimeError) as error:
            raise ToolchainError(f"{path.name}: LiteRT refuses it ({error}).") from error

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One inference; outputs by name, as stored.

        Raises:
            ToolchainError: It fails.
        """
        try:
            outputs: dict[str, np.ndarray] = self._run(**feeds)
        except (ValueError, RuntimeError) as error:
            raise ToolchainError(f"{self.path.name}: LiteRT failed ({error}).") from error
        return outputs

    def real(self, index: int) -> np.ndarray:
        """What a tensor held in the last inference, float64."""
        return self.as_real(index, self._interpreter.get_tensor(index, self._subgraph))

    def as_real(self, index: int, stored: np.ndarray) -> np.ndarray:
        """Stored values of a tensor as the real values they stand for."""
        values = stored.astype(np.float64)
        found = self.graph.tensors[index].quantization
        if stored.dtype.kind in "iu" and found is not None and found.scale is not None and len(found.scale) == 1:
            values = (values - int(found.zeroPoint[0])) * float(found.scale[0])
        return values

    def as_stored(self, index: int, values: np.ndarray) -> np.ndarray:
        """Real values as a tensor stores them."""
        tensor = self.graph.tensors[index]
        kind = np.dtype(dtype_name(tensor))
        if grid_of(tensor) is None:
            return np.ascontiguousarray(values, dtype=kind)
        found = tensor.quantization
        low, high = _LIMITS[dtype_name(tensor)]
        stored: np.ndarray = np.clip(
            np.rint(values / float(found.scale[0])) + int(found.zeroPoint[0]), low, high
        ).astype(kind)
        return stored


def grid_of(tensor: Any) -> Grid | None:
    """The values that an integer tensor with one scale can hold; None for others."""
    found, kind = tensor.quantization, dtype_name(tensor)
    if kind not in _LIMITS or found is None or found.scale is None or len(found.scale) != 1:
        return None
    low, high = _LIMITS[kind]
    return Grid.of(float(found.scale[0]), int(found.zeroPoint[0]), lowest=low, highest=high)


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")
