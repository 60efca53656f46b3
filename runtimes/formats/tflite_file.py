"""Read the structure of a .tflite file into plain values, without trusting any number in it."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = [
    "BITS",
    "Blockwise",
    "FileBuffer",
    "FileOperator",
    "FileSignature",
    "FileSubgraph",
    "FileTensor",
    "TfliteFile",
    "buffer_bytes",
    "read_tflite",
]

IDENTIFIER = b"TFL3"
BITS = {
    "float32": 32, "float16": 16, "int32": 32, "uint8": 8, "int64": 64, "bool": 8, "int16": 16, "complex64": 64,
    "int8": 8, "float64": 64, "complex128": 128, "uint64": 64, "uint32": 32, "uint16": 16, "int4": 4, "bfloat16": 16,
    "int2": 2, "uint4": 4, "float8_e4m3fn": 8, "float8_e5m2": 8,
}  # fmt: skip
"""Bits per element of the types that have a fixed size; strings, resources and variants have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blockwise:
    """Blockwise quantization: `scales` is the index of a tensor in the same subgraph."""

    scales: int
    zero_points: int
    block_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensor:
    """One tensor as the file has it, right or wrong.

    Attributes:
        dtype: In our words; "type 77" when the schema knows no such type.
        shape: As stored: 1 or -1 where `shape_signature` says -1.
        shape_signature: With -1 for dynamic dimensions; empty when the file has none.
        buffer: 0 stands for no constant data.
        scale: Float32 array; empty when not quantized.
        unknown_details: Quantization details of a kind we do not read.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    buffer: int
    scale: np.ndarray
    zero_point: np.ndarray
    quantized_dimension: int
    blockwise: Blockwise | None
    unknown_details: bool
    is_variable: bool
    is_sparse: bool
    is_external: bool

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape with -1 for dynamic dimensions."""
        return self.shape_signature or self.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOperator:
    """One operator: an input of -1 is an optional one left out.

    Attributes:
        op: Builtin name, e.g. CONV_2D; "CUSTOM name"; "builtin 77" or "opcode 77" when there is no such thing.
        options: Name of the options table's type, e.g. Conv2DOptions; empty without.
        options_table: Reads fields of the options by name, e.g. `options_table("StrideH")`; None without.
    """

    op: str
    version: int
    opcode: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    options: str
    options_table: Callable[[str], int | float | bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSubgraph:
    """Tensors and operators in file order."""

    name: str
    tensors: tuple[FileTensor, ...]
    operators: tuple[FileOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBuffer:
    """Constant bytes: at `offset` of the file.

    Attributes:
        outside: The bytes lie behind the flatbuffer, as an offset buffer, where TFLite Micro does not look.
    """

    offset: int
    bytes: int
    outside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSignature:
    """A SignatureDef: names of tensors of one subgraph."""

    key: str
    subgraph: int
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """A .tflite file's structure; weights stay in the file.

    Attributes:
        metadata: Name and buffer of each entry that goes with the model.
    """

    path: Path
    bytes: int
    version: int
    opcodes: int
    subgraphs: tuple[FileSubgraph, ...]
    buffers: tuple[FileBuffer, ...]
    signatures: tuple[FileSignature, ...]
    metadata: tuple[tuple[str, int], ...] = ()


def read_tflite(path: Path) -> TfliteFile:
    """Read the structure; nothing but the bounds of vectors is checked, see `runtimes.formats.tflite_lint`.

    Raises:
        BadInput: Not a .tflite file, or so damaged that its tables cannot be followed.
        MissingExtra: The schema is not installed.
    """
    schema = require("ai_edge_litert.schema_py_generated", extra="run-tflite")
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise BadInput(f"{path}: {size} bytes: too short for a .tflite file.")
            file.seek(4)
            found = file.read(4)
            if found != IDENTIFIER:
                raise BadInput(f"{path}: not a .tflite file: bytes 4 to 8 are {found!r}, must be {IDENTIFIER!r}.")
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        return _read_model(path, content, schema)
    except (struct.error, IndexError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise BadInput(f"{path}: damaged: its tables cannot be followed ({type(error).__name__}: {error}).") from error


def buffer_bytes(model: TfliteFile, tensor: FileTensor) -> bytes:
    """The constant bytes of a tensor, read from the file; empty without.

    Raises:
        BadInput: They lie outside the file.
    """
    if not 0 < tensor.buffer < len(model.buffers):
        return b""
    buffer = model.buffers[tensor.buffer]
    if buffer.offset + buffer.bytes > model.bytes:
        raise BadInput(f"{model.path}: tensor {tensor.name}: its bytes lie outside the file.")
    with model.path.open("rb") as file:
        file.seek(buffer.offset)
        return file.read(buffer.bytes)


class _Budget:
    """Entries that may still be read: a sound file has at most one in four bytes, a damaged length claims billions.

    It also bounds files in which many tables point to one long vector.
    """

    def __init__(self, file_bytes: int) -> None:
        self._left = file_bytes + (1 << 16)

    def spend(self, count: int, what: str) -> None:
        self._left -= count
        if self._left < 0:
            raise ValueError(f"{count} {what}: more than the file can hold")


def _read_model(path: Path, content: mmap.mmap, schema: Any) -> TfliteFile:
    model = schema.Model.GetRootAs(content, 0)
    budget = _Budget(len(content))
    codes = tuple((_operator_name(code, schema), code.Version()) for code in _entries(budget, model, "OperatorCodes"))
    subgraphs = _entries(budget, model, "Subgraphs")
    buffers = _entries(budget, model, "Buffers")
    signatures = _entries(budget, model, "SignatureDefs")
    metadata = _entries(budget, model, "Metadata")
    return TfliteFile(
        path=path,
        bytes=len(content),
        version=model.Version(),
        opcodes=len(codes),
        subgraphs=tuple(_read_subgraph(budget, subgraph, codes, schema) for subgraph in subgraphs),
        buffers=tuple(_read_buffer(buffer) for buffer in buffers),
        signatures=tuple(_read_signature(budget, signature) for signature in signatures),
        metadata=tuple((_text(budget, entry.Name()), entry.Buffer()) for entry in metadata),
    )


def _entries(budget: _Budget, table: Any, field: str) -> Iterator[Any]:
    count = getattr(table, field + "Length")()
    budget.spend(count, field)
    for index in range(count):
        entry = getattr(table, field)(index)
        if entry is None:
            raise ValueError(f"entry {index} of {field} is missing")
        yield entry


def _text(budget: _Budget, value: bytes | None) -> str:
    budget.spend(len(value or b"") // 4, "characters")
    return (value or b"").decode("utf-8", errors="replace")


def _numbers(budget: _Budget, table: Any, field: str) -> np.ndarray:
    budget.spend(getattr(table, field + "Length")(), field)
    values = getattr(table, field + "AsNumpy")()
    # An absent vector reads as the integer 0; a copy lets the mapped file go.
    return np.array(values) if isinstance(values, np.ndarray) else np.empty(0, np.int64)


def _integers(budget: _Budget, table: Any, field: str) -> tuple[int, ...]:
    return tuple(_numbers(budget, table, field).tolist())


@cache
def _names(kind: type) -> dict[int, str]:
    return {value: name for name, value in vars(kind).items() if isinstance(value, int)}


def _operator_name(code: Any, schema: Any) -> str:
    # Codes above 127 stand in the new field; older writers fill only the deprecated one.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    name = _names(schema.BuiltinOperator).get(number, f"builtin {number}")
    return f"CUSTOM {(code.CustomCode() or b'')[:200].decode(errors='replace')}" if name == "CUSTOM" else name


def _read_subgraph(budget: _Budget, subgraph: Any, codes: tuple[tuple[str, int], ...], schema: Any) -> FileSubgraph:
    tensors = _entries(budget, subgraph, "Tensors")
    operators = _entries(budget, subgraph, "Operators")
    return FileSubgraph(
        name=_text(budget, subgraph.Name()),
        tensors=tuple(_read_tensor(budget, tensor, schema) for tensor in tensors),
        operators=tuple(_read_operator(budget, operator, codes, schema) for operator in operators),
        inputs=_integers(budget, subgraph, "Inputs"),
        outputs=_integers(budget, subgraph, "Outputs"),
    )


def _read_tensor(budget: _Budget, tensor: Any, schema: Any) -> FileTensor:
    quantization = tensor.Quantization()
    scale: np.ndarray = np.empty(0, np.float32)
    zero_point: np.ndarray = np.empty(0, np.int64)
    blockwise, unknown, dimension = None, False, 0
    if quantization is not None:
        scale, zero_point = _numbers(budget, quantization, "Scale"), _numbers(budget, quantization, "ZeroPoint")
        dimension = quantization.QuantizedDimension()
        kind = quantization.DetailsType()
        details = quantization.Details()
        if kind == schema.QuantizationDetails.BlockwiseQuantization and details is not None:
            block = schema.BlockwiseQuantization()
            block.Init(details.Bytes, details.Pos)
            blockwise = Blockwise(scales=block.Scales(), zero_points=block.ZeroPoints(), block_size=block.BlockSize())
        unknown = kind != schema.QuantizationDetails.NONE and blockwise is None
    number = tensor.Type()
    return FileTensor(
        name=_text(budget, tensor.Name()),
        dtype=_names(schema.TensorType).get(number, f"type {number}").lower(),
        shape=_integers(budget, tensor, "Shape"),
        shape_signature=_integers(budget, tensor, "ShapeSignature"),
        buffer=tensor.Buffer(),
        scale=scale,
        zero_point=zero_point,
        quantized_dimension=dimension,
        blockwise=blockwise,
        unknown_details=unknown,
        is_variable=bool(tensor.IsVariable()),
        is_sparse=tensor.Sparsity() is not None,
        is_external=bool(tensor.ExternalBuffer()),
    )


def _read_operator(budget: _Budget, operator: Any, codes: tuple[tuple[str, int], ...], schema: Any) -> FileOperator:
    index = operator.OpcodeIndex()
    op, version = codes[index] if 0 <= index < len(codes) else (f"opcode {index}", 0)
    options = ""
    read: Callable[[str], Any] = _no_field
    for kind, number, table in (
        (schema.BuiltinOptions, operator.BuiltinOptionsType(), operator.BuiltinOptions()),
        (schema.BuiltinOptions2, operator.BuiltinOptions2Type(), operator.BuiltinOptions2()),
    ):
        if number and table is not None:
            options = _names(kind).get(number, f"options {number}")
            read = _field_reader(getattr(schema, options, None), table)
    return FileOperator(
        op=op,
        version=version,
        opcode=index,
        inputs=_integers(budget, operator, "Inputs"),
        outputs=_integers(budget, operator, "Outputs"),
        intermediates=_integers(budget, operator, "Intermediates"),
        options=options,
        options_table=read,
    )


def _no_field(_: str) -> None:
    return None


def _field_reader(kind: Any, table: Any) -> Callable[[str], Any]:
    if kind is None:
        return _no_field
    values = {}
    options = kind()
    options.Init(table.Bytes, table.Pos)
    for name in ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "DepthMultiplier", "FilterHeight",
                 "FilterWidth", "Axis", "Beta", "NumSplits", "Num", "ValuesCount", "BlockSize", "AdjX", "AdjY",
                 "ThenSubgraphIndex", "ElseSubgraphIndex", "CondSubgraphIndex", "BodySubgraphIndex",
                 "InitSubgraphIndex", "Subgraph", "DecompositionSubgraphIndex"):  # fmt: skip
        if hasattr(options, name):
            values[name] = getattr(options, name)()
    return values.get


def _read_buffer(buffer: Any) -> FileBuffer:
    if buffer.Offset() > 1:  # 0 and 1 are placeholders in the format's own definition
        return FileBuffer(offset=buffer.Offset(), bytes=buffer.Size(), outside=True)
    length = buffer.DataLength()
    field = buffer._tab.Offset(4)
    # The flatbuffer has no public way to ask where a vector's bytes stand.
    offset = buffer._tab.Vector(field) if field else 0
    return FileBuffer(offset=offset, bytes=length, outside=False)


def _read_signature(budget: _Budget, signature: Any) -> FileSignature:
    def named(field: str) -> tuple[tuple[str, int], ...]:
        entries = _entries(budget, signature, field)
        return tuple((_text(budget, entry.Name()), entry.TensorIndex()) for entry in entries)

    return FileSignature(
        key=_text(budget, signature.SignatureKey()),
        subgraph=signature.SubgraphIndex(),
        inputs=named("Inputs"),
        outputs=named("Outputs"),
    )
