"""Read one subgraph of a float .tflite file as operators and tensors, constants as arrays; refuse what is not float."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.require import require

__all__ = ["Operator", "Subgraph", "TensorEntry", "read_subgraph"]

_DTYPES = {
    "FLOAT32": "float32",
    "FLOAT16": "float16",
    "FLOAT64": "float64",
    "INT32": "int32",
    "INT64": "int64",
    "INT16": "int16",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One tensor; `constant` holds its values where the file has them. Dynamic dimensions count as 1."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant: np.ndarray | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One operator; an input of -1 is an optional one that is left out. `layer` is its first output's name."""

    kind: str
    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any

    def option(self, name: str, default: Any) -> Any:
        """A field of the options table; `default` where the file has no table."""
        return default if self.options is None else getattr(self.options, name, default)

    def refuse(self, reason: str, remedy: str = "") -> Unsupported:
        """The error that says why this operator cannot be imported."""
        return Unsupported(refusals=(Refusal(layer=self.layer, op=self.kind, reason=reason, remedy=remedy),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgraph:
    """Tensors and operators in file order; `inputs` and `outputs` are indices of tensors in call order."""

    tensors: tuple[TensorEntry, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_subgraph(
    path: Path, signature: str | None, *, inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> Subgraph:
    """The subgraph of `signature`, or the first one.

    Args:
        inputs: Names in the signature, in the order in which the subgraph's inputs are wanted; a file may have another
            one than the source of the model. Left as they are where these are not the signature's names.
        outputs: Likewise.

    Raises:
        BadInput: No such file or signature, or the file is damaged.
        Unsupported: The file is quantized; carries every layer that is.
    """
    flatbuffer_utils = require("ai_edge_litert.tools.flatbuffer_utils", extra="export-tflite")
    schema = require("ai_edge_litert.schema_py_generated", extra="export-tflite")
    if not path.is_file():
        raise BadInput(f"{path}: no such file.")
    try:
        with path.open("rb") as file:
            identifier = file.read(8)[4:]
        if identifier != b"TFL3":
            raise BadInput(f"{path}: not a .tflite file: bytes 4 to 8 are {identifier!r}, must be b'TFL3'.")
        model = flatbuffer_utils.read_model(str(path))
        graph = model.subgraphs[_subgraph_index(path, model, signature)]
        found = _subgraph(model, graph, schema)
        definition = _definition(model, signature)
        return replace(
            found,
            inputs=_in_order(found.inputs, definition.inputs if definition else (), inputs),
            outputs=_in_order(found.outputs, definition.outputs if definition else (), outputs),
        )
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    except (struct.error, IndexError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise BadInput(f"{path}: damaged: its tables cannot be followed ({type(error).__name__}: {error}).") from error


def _subgraph_index(path: Path, model: Any, signature: str | None) -> int:
    if signature is None:
        return 0
    known = {_text(entry.signatureKey): int(entry.subgraphIndex) for entry in model.signatureDefs or ()}
    if signature not in known:
        raise BadInput(f"{path}: signature {signature}: unknown; the file has {', '.join(known) or 'none'}.")
    return known[signature]


def _definition(model: Any, signature: str | None) -> Any:
    """The signature with this key, or that of the first subgraph; None where there is none."""
    return next(
        (
            entry
            for entry in model.signatureDefs or ()
            if (_text(entry.signatureKey) == signature if signature is not None else int(entry.subgraphIndex) == 0)
        ),
        None,
    )


def _in_order(indices: tuple[int, ...], named: Any, wanted: Sequence[str]) -> tuple[int, ...]:
    places = {_text(entry.name): int(entry.tensorIndex) for entry in named}
    if set(wanted) != set(places) or set(indices) != set(places.values()):
        return indices
    return tuple(places[name] for name in wanted)


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value or "")


def _subgraph(model: Any, graph: Any, schema: Any) -> Subgraph:
    operator_names = _names(schema.BuiltinOperator)
    type_names = _names(schema.TensorType)
    labels = [_text(tensor.name) or f"tensor_{index}" for index, tensor in enumerate(graph.tensors)]
    operators = tuple(
        Operator(
            kind=_kind(model.operatorCodes[operator.opcodeIndex], operator_names),
            layer=labels[operator.outputs[0]],
            inputs=tuple(int(index) for index in operator.inputs),
            outputs=tuple(int(index) for index in operator.outputs),
            options=operator.builtinOptions if operator.builtinOptions is not None else operator.builtinOptions2,
        )
        for operator in graph.operators or ()
    )
    _refuse_quantized(graph, operators, type_names)
    tensors = tuple(
        _tensor(model, tensor, label, type_names) for tensor, label in zip(graph.tensors, labels, strict=True)
    )
    count = len(tensors)
    used = {index for operator in operators for index in (*operator.inputs, *operator.outputs) if index != -1}
    used |= {int(index) for index in (*graph.inputs, *graph.outputs)}
    if any(not 0 <= index < count for index in used):
        raise IndexError("an operator names a tensor that does not exist")
    return Subgraph(
        tensors=tensors,
        operators=operators,
        inputs=tuple(int(index) for index in graph.inputs),
        outputs=tuple(int(index) for index in graph.outputs),
    )


def _names(kind: type) -> dict[int, str]:
    return {value: name for name, value in vars(kind).items() if isinstance(value, int)}


def _kind(code: Any, names: dict[int, str]) -> str:
    # Codes above 127 stand in the new field; older writers fill only the deprecated one.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    kind = names.get(number, f"builtin {number}")
    return f"CUSTOM {_text(code.customCode)}" if kind == "CUSTOM" else kind


def _refuse_quantized(graph: Any, operators: tuple[Operator, ...], types: dict[int, str]) -> None:
    def is_quantized(index: int) -> bool:
        if index < 0:
            return False
        tensor = graph.tensors[index]
        scales = tensor.quantization.scale if tensor.quantization is not None else None
        return (scales is not None and len(scales) > 0 and "INT" in types[tensor.type]) or types[tensor.type] in (
            "INT4",
            "UINT4",
            "INT2",
        )

    refusals = tuple(
        Refusal(layer=operator.layer, op=operator.kind, reason="is quantized; only float files are imported")
        for operator in operators
        if any(is_quantized(index) for index in (*operator.inputs, *operator.outputs))
    )
    if refusals:
        raise Unsupported("The file is quantized; give the float model it was made from.", refusals=refusals)


def _tensor(model: Any, tensor: Any, label: str, types: dict[int, str]) -> TensorEntry:
    shape = tuple(max(1, int(size)) if int(size) < 0 else int(size) for size in _list(tensor.shape))
    name = types.get(tensor.type, f"type {tensor.type}")
    dtype = _DTYPES.get(name, name.lower())
    data = model.buffers[tensor.buffer].data if tensor.buffer else None
    constant = None
    if data is not None and len(data) and dtype in _DTYPES.values():
        raw = data if isinstance(data, np.ndarray) else np.frombuffer(bytes(data), np.uint8)
        constant = np.ascontiguousarray(raw).view(np.dtype(dtype)).reshape(shape)
    return TensorEntry(name=label, shape=shape, dtype=dtype, constant=constant)


def _list(values: Any) -> list[int]:
    return [] if values is None else list(values)
