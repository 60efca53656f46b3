"""Where a model is cut in two: which layers run on the edge, and exactly which tensors travel."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.tensor import TensorInfo

__all__ = ["ALL_CLOUD", "ALL_EDGE", "Cut", "cut_id", "id_of_names", "make_cut", "tensor_bytes"]

ALL_EDGE = "all-edge"
ALL_CLOUD = "all-cloud"
_BITS = {
    "float64": 64,
    "int64": 64,
    "float32": 32,
    "int32": 32,
    "float16": 16,
    "int16": 16,
    "int4": 4,
    "uint4": 4,
    "int2": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A down-set of a `LayerGraph`: every layer that an edge layer reads from is on the edge as well.

    Attributes:
        id: Stable: depends on the names of the edge layers alone. `all-edge`, `all-cloud`, else the number of edge
            layers and six digits of a digest, e.g. "012-3fa9c1".
        edge_layers: Names, in topological order.
        up: Tensors that the cloud half reads from the edge: made there, or inputs of the model.
        down: Outputs of the model that the cloud half makes and the edge gets back.
    """

    id: str
    edge_layers: tuple[str, ...]
    up: tuple[TensorInfo, ...]
    down: tuple[TensorInfo, ...]

    @property
    def up_bytes(self) -> int:
        """Bytes that cross from edge to cloud, uncoded, in the type they have in the model."""
        return sum(tensor_bytes(tensor) for tensor in self.up)

    @property
    def down_bytes(self) -> int:
        """Bytes that come back from the cloud."""
        return sum(tensor_bytes(tensor) for tensor in self.down)


def tensor_bytes(tensor: TensorInfo) -> int:
    """Bytes of one tensor on the wire, packed: two 4-bit values share a byte.

    Raises:
        BadInput: A dimension is dynamic, so the size is not known.
    """
    if any(size < 0 for size in tensor.shape):
        raise BadInput(f"tensor {tensor.name}: shape {tensor.shape} has a dynamic dimension; fix the batch first.")
    return math.ceil(math.prod(tensor.shape) * _BITS.get(tensor.dtype, 8) / 8)


def cut_id(graph: LayerGraph, edge_layers: Iterable[str]) -> str:
    """The id of the cut whose edge half is `edge_layers`."""
    return id_of_names(sorted(set(edge_layers)), of=len(graph.layers))


def id_of_names(names: Sequence[str], *, of: int) -> str:
    """The id of the cut with these edge layers, sorted and each once, in a model of `of` layers."""
    if not names:
        return ALL_CLOUD
    if len(names) == of:
        return ALL_EDGE
    return f"{len(names):03d}-{hashlib.sha256(chr(10).join(names).encode()).hexdigest()[:6]}"


def make_cut(graph: LayerGraph, edge_layers: Iterable[str]) -> Cut:
    """The cut of `graph` whose edge half is `edge_layers`.

    What layers make of weights alone never crosses: the half that reads it computes it for itself.

    Raises:
        BadInput: A layer is unknown, or reads a tensor that the cloud half makes.
    """
    edge = set(edge_layers)
    unknown = edge - {layer.name for layer in graph.layers}
    if unknown:
        raise BadInput(f"cut: no layer named {', '.join(sorted(unknown))} in the model.")
    tensors = {tensor.name: tensor for tensor in graph.inputs}
    on_edge = set(tensors)
    constant = graph.constant_layers
    everywhere: set[str] = set()
    wanted: dict[str, None] = {}
    for layer in graph.layers:
        tensors.update((tensor.name, tensor) for tensor in layer.outputs)
        if layer.name in constant:
            everywhere.update(tensor.name for tensor in layer.outputs)
            on_edge.update(tensor.name for tensor in layer.outputs)
        elif layer.name not in edge:
            wanted.update((name, None) for name in layer.inputs)
            continue
        foreign = [name for name in layer.inputs if name not in on_edge]
        if foreign:
            raise BadInput(f"cut: {layer.name} is on the edge but reads {', '.join(foreign)}, which the cloud makes.")
        on_edge.update(tensor.name for tensor in layer.outputs)
    crossing = on_edge - everywhere
    return Cut(
        id=cut_id(graph, edge),
        edge_layers=tuple(layer.name for layer in graph.layers if layer.name in edge),
        up=tuple(tensors[name] for name in wanted if name in crossing),
        down=tuple(tensors[name] for name in dict.fromkeys(graph.outputs) if name not in on_edge),
    )
