"""What a float TFLite file says of itself: control flow in it, what makes each output, what kind of model it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.require import require

__all__ = ["check_plain", "check_unquantized", "final_operators", "kind_of"]

# Operators with state or with graphs inside: no layer by layer account of them is possible.
NOT_PLAIN = frozenset(
    {"ASSIGN_VARIABLE", "CALL", "CALL_ONCE", "CUSTOM", "DELEGATE", "IF", "READ_VARIABLE", "VAR_HANDLE", "WHILE"}
)

QUANTIZED_TYPES = frozenset({"INT2", "INT4", "INT8", "INT16", "UINT4", "UINT8", "UINT16"})


def kind_of(path: Path) -> Literal["cnn", "recommender", "generic"]:
    """What the file's operators make of it; a recommender only where it looks rows up without any convolution."""
    model, names = _read(path)
    used = {names[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators}
    if any("CONV" in name for name in used):
        return "cnn"
    return "recommender" if used & {"EMBEDDING_LOOKUP", "GATHER"} else "generic"


def check_unquantized(path: Path, *, where: str) -> None:
    """Refuse a file whose values are quantized already.

    Raises:
        Unsupported: Names the first few quantized tensors.
    """
    model, _ = _read(path)
    schema = require("ai_edge_litert.schema_py_generated", extra="export-tflite")
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    found = [
        Refusal(layer=tensor.name.decode("utf-8"), op=types[tensor.type], reason="is quantized already")
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.quantization is not None
        and tensor.quantization.scale is not None
        and len(tensor.quantization.scale)
        and types[tensor.type] in QUANTIZED_TYPES
    ]
    if found:
        raise Unsupported(
            f"{where}: holds {len(found)} quantized tensors: what their rounding lost cannot be had back. Convert the "
            "float model that it came from; a quantized file can be inspected, verified, benchmarked and split.",
            refusals=tuple(found[:5]),
        )


def final_operators(path: Path) -> dict[str, str]:
    """The operator that makes each signature output, e.g. {"dense": "SOFTMAX"}; what nothing makes is left out."""
    model, names = _read(path)
    result = {}
    for signature in model.signatureDefs or ():
        graph = model.subgraphs[signature.subgraphIndex]
        makers = {int(tensor): operator for operator in graph.operators for tensor in operator.outputs}
        for entry in signature.outputs:
            if entry.tensorIndex in makers:
                result[entry.name.decode("utf-8")] = names[makers[entry.tensorIndex].opcodeIndex]
    return result


def check_plain(path: Path, *, where: str) -> None:
    """Refuse a file with loops, branches, variables or custom operators.

    Raises:
        Unsupported: With one refusal for each such operator.
    """
    model, names = _read(path)
    refusals = tuple(
        Refusal(
            layer=graph.tensors[operator.outputs[0]].name.decode("utf-8")
            if len(operator.outputs)
            else names[operator.opcodeIndex],
            op=_told(model, names, operator),
            reason="TFLite has no such operator of its own"
            if names[operator.opcodeIndex] == "CUSTOM"
            else "a recurrent or branching layer: only plain feed-forward graphs are converted",
        )
        for graph in model.subgraphs
        for operator in graph.operators
        if names[operator.opcodeIndex] in NOT_PLAIN
    )
    if refusals:
        raise Unsupported(f"{where}: is not a plain feed-forward model.", refusals=refusals)


def _told(model: Any, names: list[str], operator: Any) -> str:
    """The operator's name; a custom one has its own, "Flex..." where TensorFlow's own would be needed."""
    code = model.operatorCodes[operator.opcodeIndex].customCode
    return str(code, "utf-8", "replace") if code else names[operator.opcodeIndex]


def _read(path: Path) -> tuple[Any, list[str]]:
    schema = require("ai_edge_litert.schema_py_generated", extra="export-tflite")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    known = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return model, [known.get(code, str(code)) for code in codes]
