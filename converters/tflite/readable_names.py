"""Give the tensors of a converter's file names a person can read: the layer's, instead of a chain of fused steps.

A converter names the result of a fused convolution after everything it fused, e.g.
"model_1/relu_1/Relu;model_1/bn_1/batchnorm/add_1;model_1/conv2d_1/convolution". A layer is named after its first output
tensor, so these names reach every report; here the example becomes "conv2d_1".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from converters.tflite.flatbuffer import op_name, read_model, tensor_name, write_model

__all__ = ["layer_name", "rename_layers"]

WEIGHTY = {
    "CONV_2D": r"conv",
    "DEPTHWISE_CONV_2D": r"depthwise|conv",
    "TRANSPOSE_CONV": r"conv",
    "FULLY_CONNECTED": r"matmul|tensordot|einsum|dot",
}
PREFIX = re.compile(r"^(StatefulPartitionedCall[^/]*|PartitionedCall[^/]*|serving_default_|functional[^/]*)/?(:\d+$)?")


TRACED_AGAIN = re.compile(r"(.+)_\d+")


def layer_name(raw: str, op: str, *, root: str = "", layers: Collection[str] = ()) -> str:
    """The layer that made the tensor `raw`, or its operator where the name tells nothing.

    Args:
        op: Operator whose output it is; decides which part of a fused name counts.
        root: First path component that all names of the graph share, e.g. the Keras model's name.
        layers: The source's own layer names where the converter traced every layer a second time and numbered it:
            "conv_1" is layer "conv" again.
    """
    parts = [PREFIX.sub("", part).removeprefix(f"{root}/") for part in raw.split(";")]
    parts = [part for part in parts if part] or [op.lower()]
    wanted = WEIGHTY.get(op)
    chosen = parts[0]
    if wanted:
        chosen = next((part for part in parts if re.match(wanted, part.rpartition("/")[2], re.IGNORECASE)), chosen)
    path, _, last = chosen.rpartition("/")
    name = path or re.sub(r":\d+$", "", last)
    first, slash, rest = name.partition("/")
    again = TRACED_AGAIN.fullmatch(first)
    return again[1] + slash + rest if again and again[1] in layers else name


def rename_layers(path: Path, *, layers: Sequence[str] = ()) -> None:
    """Rename the results of all operators in the file, uniquely within each graph and alike in every graph.

    Args:
        layers: The source's own layer names.

    Raises:
        BadInput: Not a TFLite file.
    """
    model = read_model(path)
    for graph in model.subgraphs:
        results = [(operator, index) for operator in graph.operators for index in operator.outputs if index >= 0]
        names = [tensor_name(graph.tensors[index]) for _, index in results]
        root = _shared_root(names)
        known = layers if _is_traced_again(names, root, layers) else ()
        taken = {tensor_name(tensor) for tensor in graph.tensors} - {
            tensor_name(graph.tensors[index]) for _, index in results
        }
        for operator, index in results:
            tensor = graph.tensors[index]
            readable = layer_name(tensor_name(tensor), op_name(model, operator), root=root, layers=known)
            name = _unique(readable, taken)
            taken.add(name)
            tensor.name = name.encode()
    write_model(model, path)


def _shared_root(names: Sequence[str]) -> str:
    firsts = {PREFIX.sub("", part).split("/")[0] for name in names for part in name.split(";") if "/" in part}
    return firsts.pop() if len(firsts) == 1 else ""


def _is_traced_again(names: Sequence[str], root: str, layers: Sequence[str]) -> bool:
    """Whether a name stands there that no layer has, and that one has when its number is dropped."""
    firsts = {layer_name(name, "").partition("/")[0] for name in names}
    firsts |= {layer_name(name, "", root=root).partition("/")[0] for name in names}
    numbered = (TRACED_AGAIN.fullmatch(first) for first in firsts if first not in layers)
    return any(found and found[1] in layers for found in numbered)


def _unique(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 1
    while f"{name}.{number}" in taken:
        number += 1
    return f"{name}.{number}"
