"""Carry layer names of a torch graph through litert-torch into the TFLite file, and give its tensors readable names.

litert-torch names a tensor after the operators fused into it. Each operator is labelled "layer|operator;" on the
way in; on the way out the label whose operator fits the TFLite operator names the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from converters.executorch.program import LAYER, name_layers
from converters.tflite.flatbuffer import has_data, op_name, tensor_name
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

__all__ = ["label_operators", "labelled_conversion", "rename_graph", "rename_signatures"]

# Parts of aten operator names that become each TFLite operator with weights.
FAMILIES = {
    "CONV_2D": ("conv",),
    "DEPTHWISE_CONV_2D": ("conv",),
    "TRANSPOSE_CONV": ("conv",),
    "FULLY_CONNECTED": ("linear", "mm", "matmul"),
    "BATCH_MATMUL": ("bmm", "matmul", "mm"),
    "EMBEDDING_LOOKUP": ("embedding",),
    "GATHER": ("embedding", "index", "gather"),
}
# How aten calls what TFLite names otherwise.
SYNONYMS = {
    "LOGISTIC": ("sigmoid",),
    "MAX_POOL_2D": ("max_pool",),
    "AVERAGE_POOL_2D": ("avg_pool",),
    "MEAN": ("mean", "avg_pool"),
    "CONCATENATION": ("cat",),
}


def label_operators(graph: Any) -> dict[str, str]:
    """Name the layer of every operator of an exported graph module; returns the names by node name."""
    name_layers(graph)
    return {node.name: str(node.meta["custom"][LAYER]) for node in graph.graph.nodes if node.op == "call_function"}


@contextmanager
def labelled_conversion() -> Iterator[None]:
    """Within it, litert-torch names tensors by our labels instead of by the classes of modules.

    It offers no setting for that, so the function that builds the names is replaced; where a version has none of this
    name, tensors keep the converter's own names.
    """
    debuginfo: Any = require("litert_torch.backend.debuginfo", extra="export-tflite")
    original = getattr(debuginfo, "build_mlir_debuginfo", None)
    if original is None:
        yield
        return

    def build(node: Any) -> Any:
        layer = (getattr(node, "meta", None) or {}).get("custom", {}).get(LAYER)
        if layer is None:
            return original(node)
        target = getattr(node.target, "_schema", None)
        kind = target.name.split("::")[-1] if target is not None else getattr(node.target, "__name__", node.op)
        return f"{layer}|{kind};"

    debuginfo.build_mlir_debuginfo = build
    try:
        yield
    finally:
        debuginfo.build_mlir_debuginfo = original


def rename_signatures(model: Any, inputs: tuple[TensorInfo, ...], outputs: tuple[TensorInfo, ...]) -> None:
    """Give the signatures' inputs and outputs, and their tensors, the source's names."""
    for definition in model.signatureDefs:
        graph = model.subgraphs[definition.subgraphIndex]
        for entries, infos in ((definition.inputs, inputs), (definition.outputs, outputs)):
            # The converter calls them args_0, args_1, ... and output_0, output_1, ... in call order.
            for entry in entries:
                entry.name = infos[int(bytes(entry.name).decode().rpartition("_")[2])].name.encode()
        for entry in definition.inputs:
            graph.tensors[entry.tensorIndex].name = entry.name


def rename_graph(model: Any, labels: dict[str, str]) -> None:
    """Name every operator's results after its layer, and its weights "layer.weight" and "layer.bias".

    Args:
        labels: Layer names in the order of the source's operators: what names results that the converter named itself.
    """
    for graph in model.subgraphs:
        taken = {tensor_name(graph.tensors[index]) for index in graph.inputs}
        named: dict[int, str] = {}
        # Operators with weights choose first: the layer's plain name is theirs, not its padding's.
        for weighty in (True, False):
            results = []
            for position, operator in enumerate(graph.operators):
                kind = op_name(model, operator)
                if _has_weights(model, graph, operator, kind) != weighty or not len(operator.outputs):
                    continue
                wanted = _choose(tensor_name(graph.tensors[operator.outputs[0]]), kind)
                if not wanted and any(index in operator.outputs for index in graph.outputs):
                    results.append((position, kind))
                    continue
                named[position] = _taken_name(wanted or kind.lower(), kind, taken)
            # Results bear no label. What labels are left belongs to them, in order; from the last one backwards, as
            # operators before the results may have vanished in others.
            for position, kind in reversed(results):
                named[position] = _taken_name(_unused(labels, named, kind), kind, taken)
        weights: set[int] = set()
        for position, operator in enumerate(graph.operators):
            if position in named:
                _rename(model, graph, operator, named[position], weights)
        for tensor in graph.tensors:
            # What is left are constants such as the bounds of a slice: "layer|operator;2".
            layer, bar, rest = tensor_name(tensor).partition("|")
            if bar:
                tensor.name = f"{layer}.{rest.partition(';')[0]}.operand".encode()


def _taken_name(wanted: str, kind: str, taken: set[str]) -> str:
    """`wanted`, or the nearest name that is free; it is not free any more."""
    name = wanted if wanted not in taken else _free(f"{wanted}.{kind.lower()}", taken)
    taken.add(name)
    return name


def _rename(model: Any, graph: Any, operator: Any, name: str, weights: set[int]) -> None:
    for number, index in enumerate(operator.outputs):
        graph.tensors[index].name = (name if number == 0 else f"{name}:{number}").encode()
    if op_name(model, operator) not in FAMILIES:
        return
    constants = [index for index in operator.inputs if index >= 0 and has_data(model, graph.tensors[index])]
    for index, role in zip(constants, ("weight", "bias"), strict=False):
        if index not in weights:  # shared ones keep the name of their first layer
            weights.add(index)
            graph.tensors[index].name = f"{name}.{role}".encode()


def _has_weights(model: Any, graph: Any, operator: Any, kind: str) -> bool:
    return kind in FAMILIES and any(
        index >= 0 and has_data(model, graph.tensors[index]) for index in list(operator.inputs)[:2]
    )


def _choose(raw: str, kind: str) -> str:
    """The layer in a fused name that fits the operator; the first one where none does; "" where there is none."""
    found = [part.rpartition("|")[::2] for part in raw.split(";") if "|" in part]
    wanted = _aten_names(kind)
    for layer, operator in found:
        if any(part in operator for part in wanted):
            return layer
    return found[0][0] if found else ""


def _unused(labels: dict[str, str], named: dict[int, str], kind: str) -> str:
    """A layer for a result that bears the signature's name: the last one of the fitting kind that has no result yet."""
    used = set(named.values())
    wanted = _aten_names(kind)
    fitting = [label for node, label in labels.items() if any(part in node for part in wanted) and label not in used]
    if fitting:
        return fitting[-1]
    last = next(reversed(labels.values()), "")
    return last if last and last not in used else kind.lower()


def _aten_names(kind: str) -> tuple[str, ...]:
    return FAMILIES.get(kind) or SYNONYMS.get(kind) or (kind.lower(),)


def _free(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"
