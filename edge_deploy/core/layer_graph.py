"""The layers of a model in topological order: what the support check, the reports and the partitioner read."""

from __future__ import annotations

from dataclasses import dataclass

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["Layer", "LayerGraph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One operator.

    Attributes:
        op: The operator in the words of the file, e.g. CONV_2D or aten.conv2d.
        inputs: Names of the tensors it reads that are not weights.
        weight_bytes: Bytes of its weights in the file; 0 when it has none.
        macs: Multiply-accumulates for one inference; 0 for an operator without any.
        group: Layers of one group, other than "", are computed as one, e.g. a convolution and the relu fused into it,
            or look-ups into tables that are stored together: a cut between them is not legal.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[TensorInfo, ...]
    weight_bytes: int = 0
    macs: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGraph:
    """Layers in topological order between the model's inputs and outputs."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        known = {tensor.name for tensor in self.inputs}
        names: set[str] = set()
        for layer in self.layers:
            missing = [name for name in layer.inputs if name not in known]
            if missing:
                raise BadInput(f"layer {layer.name}: reads {', '.join(missing)} before any layer makes it.")
            if layer.name in names:
                raise BadInput(f"layer {layer.name}: two layers have this name.")
            names.add(layer.name)
            known |= {tensor.name for tensor in layer.outputs}
        missing = [name for name in self.outputs if name not in known]
        if missing:
            raise BadInput(f"output {', '.join(missing)}: no layer makes it.")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def constant_layers(self) -> frozenset[str]:
        """Layers that read nothing but weights, e.g. ones that widen them: either half of a cut computes its own."""
        made: set[str] = set()
        found: set[str] = set()
        for layer in self.layers:
            if made.issuperset(layer.inputs):
                found.add(layer.name)
                made |= {tensor.name for tensor in layer.outputs}
        return frozenset(found)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(layer.macs for layer in self.layers)
