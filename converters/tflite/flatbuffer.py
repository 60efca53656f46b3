"""Read, edit and write TFLite flatbuffers with the schema's object API; constants as NumPy arrays."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from converters.quantize.packing import pack_int4, unpack_int4
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = [
    "INLINE_LIMIT",
    "add_buffer",
    "add_opcode",
    "add_tensor",
    "constant",
    "dtype_name",
    "has_data",
    "op_name",
    "read_model",
    "schema",
    "set_affine",
    "set_constant",
    "tensor_name",
    "tensor_type",
    "write_model",
]

# A flatbuffer's root must stay below 2 GB; larger constants go behind it and are referred to by offset.
INLINE_LIMIT = 2**31 - 2**20
OFFSET_ALIGNMENT = 64
# Larger files are mapped instead of read; a mapped file must not be overwritten while its model is in use.
MAP_LIMIT = 2**28
# What the generated accessors raise when an offset or a length leads out of the file.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError, struct.error)
OLD_OPCODE_LIMIT = 127  # opcodes above this stand in the newer field only


def schema() -> Any:
    """The generated schema module of ai-edge-litert."""
    return require("ai_edge_litert.schema_py_generated", extra="run-tflite")


def read_model(path: Path) -> Any:
    """The file as a `ModelT`; offset buffers are resolved, so that every constant stands in its buffer's `data`.

    Raises:
        BadInput: The file cannot be read or is no TFLite flatbuffer.
    """
    flatbuffers = require("ai_edge_litert.tools.flatbuffer_utils", extra="run-tflite")
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if head[4:8] != b"TFL3":
            raise BadInput(f"{path}: not a TFLite file (the identifier at byte 4 is {head[4:8]!r}, not b'TFL3').")
        if path.stat().st_size > MAP_LIMIT:
            return flatbuffers.read_model(str(path))
        return flatbuffers.read_model_from_bytearray(path.read_bytes())
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    except _DAMAGE as error:
        raise BadInput(f"{path}: damaged TFLite file ({type(error).__name__}: {error}).") from error


def write_model(model: Any, path: Path) -> int:
    """Write the model and return its size in bytes.

    Buffers are inline wherever the file stays below 2 GB, because TFLite Micro silently ignores offset buffers.
    """
    sizes = sum(len(buffer.data) for buffer in model.buffers if buffer.data is not None)
    if sizes < INLINE_LIMIT:
        for buffer in model.buffers:
            if buffer.data is not None:
                buffer.data = np.frombuffer(buffer.data, np.uint8)
        data = _pack(model)
        path.write_bytes(data)
        return len(data)
    return _write_with_offsets(model, path)


def _pack(model: Any) -> bytes:
    flatbuffers = require("flatbuffers", extra="run-tflite")
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _write_with_offsets(model: Any, path: Path) -> int:
    tools = require("ai_edge_litert.tools.flatbuffer_utils", extra="run-tflite")
    outside = [(index, b.data) for index, b in enumerate(model.buffers) if b.data is not None and len(b.data) > 4096]
    for index, _ in outside:
        # Placeholders that are not the default, so that the slots exist and can be patched below.
        model.buffers[index].data, model.buffers[index].offset, model.buffers[index].size = None, 2, 2
    root = bytearray(_pack(model))
    view = schema().Model.GetRootAs(root, 0)
    position = len(root)
    plan = []
    for index, data in outside:
        position = -(-position // OFFSET_ALIGNMENT) * OFFSET_ALIGNMENT
        tools.update_packed_buffer(view.Buffers(index), offset=position, size=len(data))
        plan.append((position, data))
        position += len(data)
    with path.open("wb") as file:
        file.write(root)
        for start, data in plan:
            file.write(b"\0" * (start - file.tell()))
            file.write(np.frombuffer(data, np.uint8).data)
    for index, data in outside:
        model.buffers[index].data, model.buffers[index].offset, model.buffers[index].size = data, 0, 0
    return position


@cache
def _operator_names() -> dict[int, str]:
    return {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}


@cache
def _type_names() -> dict[int, str]:
    return {code: name.lower() for name, code in vars(schema().TensorType).items() if isinstance(code, int)}


def tensor_type(name: str) -> int:
    """Schema code of a type such as "int8"."""
    code: int = getattr(schema().TensorType, name.upper())
    return code


def dtype_name(tensor: Any) -> str:
    """Type of a tensor, e.g. "float32", "int4"."""
    return _type_names()[tensor.type]


def tensor_name(tensor: Any) -> str:
    """Name of a tensor as text."""
    name = tensor.name or b""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def op_name(model: Any, operator: Any) -> str:
    """Builtin operator's name, e.g. "CONV_2D"; "CUSTOM:name" for a custom one."""
    code = model.operatorCodes[operator.opcodeIndex]
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = _operator_names().get(number, f"OPERATOR_{number}")
    if name == "CUSTOM":
        custom = code.customCode or b""
        return f"CUSTOM:{custom.decode('utf-8', 'replace') if isinstance(custom, bytes) else custom}"
    return name


def has_data(model: Any, tensor: Any) -> bool:
    """Whether the tensor is a constant."""
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def constant(model: Any, tensor: Any) -> np.ndarray | None:
    """Stored values of a constant in the tensor's shape, packed nibbles widened to int8; None for a variable.

    Raises:
        BadInput: The buffer's length does not fit shape and type.
    """
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        return None
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    count = int(np.prod(shape, dtype=np.int64))
    kind = dtype_name(tensor)
    raw = np.frombuffer(data, np.uint8)
    try:
        if kind == "int4":
            return unpack_int4(raw, count).reshape(shape)
        return raw.view(np.dtype(kind)).reshape(shape)
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"constant {tensor_name(tensor)}: {raw.size} bytes do not hold {kind} values of shape {shape} ({error})."
        ) from error


def add_buffer(model: Any, data: np.ndarray) -> int:
    """Append a buffer with these bytes and return its index."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def set_constant(model: Any, tensor: Any, values: np.ndarray, kind: str) -> None:
    """Give the tensor these values as a constant of type `kind` in a new buffer; "int4" is packed here."""
    data = pack_int4(values) if kind == "int4" else np.asarray(values).astype(np.dtype(kind))
    tensor.type = tensor_type(kind)
    tensor.buffer = add_buffer(model, data)


def set_affine(tensor: Any, scales: np.ndarray, zero_points: np.ndarray, *, axis: int = 0) -> None:
    """Give the tensor scales and zero points along `axis`."""
    parameters = schema().QuantizationParametersT()
    parameters.scale = np.asarray(scales, np.float32).reshape(-1)
    parameters.zeroPoint = np.asarray(zero_points, np.int64).reshape(-1)
    parameters.quantizedDimension = axis
    tensor.quantization = parameters


def add_tensor(graph: Any, name: str, shape: tuple[int, ...], kind: str, *, like: Any = None) -> int:
    """Append a variable tensor to a subgraph and return its index.

    Args:
        like: Tensor whose shape signature (dynamic dimensions) the new one takes over.
    """
    tensor = schema().TensorT()
    tensor.name = name.encode()
    tensor.shape = [int(size) for size in shape]
    tensor.type = tensor_type(kind)
    tensor.buffer = 0
    tensor.hasRank = True
    if like is not None:
        tensor.shapeSignature = like.shapeSignature
        tensor.hasRank = like.hasRank
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def add_opcode(model: Any, name: str, version: int) -> int:
    """Index of the operator code with this name and version, appended where it is missing."""
    number = getattr(schema().BuiltinOperator, name)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.version == version:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode = number
    code.deprecatedBuiltinCode = min(number, OLD_OPCODE_LIMIT)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
