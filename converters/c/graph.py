"""The primary graph of a full-integer .tflite file as plain values: tensors with their scales, operators in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import constant, dtype_name, op_name, read_model, tensor_name
from edge_deploy.core.errors import BadInput, Unsupported

__all__ = ["Graph", "Node", "Tensor", "read_graph"]

ITEM_BYTES = {"int8": 1, "uint8": 1, "bool": 1, "int16": 2, "int32": 4, "float32": 4, "int64": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One value of the graph.

    Attributes:
        scale: float32, as the file has them; empty where the values are not quantized.
        values: Of a constant; packed 4-bit weights are widened to int8. None where the value is computed.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0
    values: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int:
        """Bytes in memory."""
        return self.size * ITEM_BYTES.get(self.dtype, 0)

    @property
    def zero(self) -> int:
        """The zero point of the whole tensor; 0 without one."""
        return int(self.zero_point[0]) if len(self.zero_point) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator; `inputs` holds None where an optional one is left out.

    Attributes:
        is_legacy: Its values were UINT8 in the file; see `converters.c.legacy_bytes`.
        is_frugal: Scratch memory is dearer than speed here.
    """

    layer: str
    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any
    is_legacy: bool = False
    is_frugal: bool = False

    def option(self, name: str, default: Any = None) -> Any:
        """A builtin option, or `default` where the file says nothing."""
        value = getattr(self.options, name, None)
        return default if value is None else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Operators in the order of the file, which is an order of execution."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]


def read_graph(path: Path) -> Graph:
    """The file's first subgraph.

    Raises:
        BadInput: Damaged, or it has sizes that only a call decides.
        Unsupported: It holds control flow.
    """
    from runtimes.formats.tflite import lint
    from runtimes.formats.tflite_file import read_tflite
    from runtimes.formats.tflite_layers import layer_names

    problems = lint(path)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    model = read_model(path)
    subgraph = model.subgraphs[0]
    names = layer_names(read_tflite(path).subgraphs[0])
    tensors = [_tensor(model, index, tensor, path) for index, tensor in enumerate(subgraph.tensors)]
    nodes = []
    for name, operator in zip(names, subgraph.operators or (), strict=True):
        op = op_name(model, operator)
        if op in ("IF", "WHILE", "CALL", "CALL_ONCE"):
            raise Unsupported(f"{path}: layer {name} ({op}): control flow has no form in C here.")
        given = operator.inputs if operator.inputs is not None else ()
        nodes.append(
            Node(
                layer=name,
                op=op,
                inputs=tuple(tensors[i] if i >= 0 else None for i in given),
                outputs=tuple(tensors[i] for i in operator.outputs),
                options=operator.builtinOptions,
            )
        )
    return Graph(
        inputs=tuple(tensors[i] for i in subgraph.inputs),
        outputs=tuple(tensors[i] for i in subgraph.outputs),
        nodes=tuple(nodes),
    )


def _tensor(model: Any, index: int, tensor: Any, path: Path) -> Tensor:
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    dynamic = tensor.shapeSignature if tensor.shapeSignature is not None else ()
    # The batch of a converter's file is often open in the signature and 1 in the shape; 1 is what we compile.
    if any(size < 0 for size in shape) or any(size < 0 for size in list(dynamic)[1:]):
        raise BadInput(
            f"{path}: tensor {tensor_name(tensor)}: shape {tuple(dynamic) or shape} is open; a C project needs "
            "fixed sizes."
        )
    quantization = tensor.quantization
    has_scale = quantization is not None and quantization.scale is not None and len(quantization.scale)
    scale = np.asarray(quantization.scale, np.float32) if has_scale else np.zeros(0, np.float32)
    points = quantization.zeroPoint if has_scale and quantization.zeroPoint is not None else ()
    return Tensor(
        index=index,
        name=tensor_name(tensor) or f"tensor_{index}",
        shape=shape,
        dtype=dtype_name(tensor),
        scale=scale,
        zero_point=np.asarray(points if len(points) else np.zeros(len(scale)), np.int64),
        axis=int(quantization.quantizedDimension) if has_scale else 0,
        values=constant(model, tensor),
    )
