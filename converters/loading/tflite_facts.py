"""What a float TFLite file that a stock converter wrote says of itself: control flow in it, what makes each output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.require import require

__all__ = ["check_plain", "final_operators"]

# Operators with state or with graphs inside: no layer by layer account of them is possible.
NOT_PLAIN = frozenset(
    {"ASSIGN_VARIABLE", "CALL", "CALL_ONCE", "CUSTOM", "DELEGATE", "IF", "READ_VARIABLE", "VAR_HANDLE", "WHILE"}
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
            op=names[operator.opcodeIndex],
            reason="a recurrent or branching layer: only plain feed-forward graphs are converted",
        )
        for graph in model.subgraphs
        for operator in graph.operators
        if names[operator.opcodeIndex] in NOT_PLAIN
    )
    if refusals:
        raise Unsupported(f"{where}: is not a plain feed-forward model.", refusals=refusals)


def _read(path: Path) -> tuple[Any, list[str]]:
    schema = require("ai_edge_litert.schema_py_generated", extra="export-tflite")
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    known = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return model, [known.get(code, str(code)) for code in codes]
