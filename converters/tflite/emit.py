"""Build a TFLite file operator by operator, with constants that are streamed and never held in memory as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.recommender.resumable import Part, Staging
from converters.tflite.emit_stream import Stream, write_streamed
from converters.tflite.flatbuffer import schema, tensor_type

__all__ = ["Constant", "Emitter", "Graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A constant of the file; every subgraph that reads it gets a tensor of its own over the same buffer.

    Attributes:
        scale: Empty when the values are not quantized; zero points are 0 unless given.
        axis: The axis that `scale` runs along.
        block_scales: float16 constant [rows, 1] with the scale of each row; excludes `scale`.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    buffer: int
    scale: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: int = 0
    axis: int = 0
    block_scales: Constant | None = None


class Emitter:
    """A TFLite model under construction."""

    def __init__(self, description: str) -> None:
        fb = schema()
        self.model = fb.ModelT()
        self.model.version = 3
        self.model.description = description.encode()
        self.model.operatorCodes = []
        self.model.buffers = [fb.BufferT()]
        self.model.metadata = []
        self.model.signatureDefs = []
        self.model.subgraphs = []
        self._codes: dict[tuple[str, int], int] = {}
        self._streams: dict[int, Stream] = {}
        self._small: dict[tuple[str, str, tuple[int, ...], bytes], Constant] = {}

    def constant(self, name: str, values: np.ndarray, **quantization: Any) -> Constant:
        """A small constant, held in memory; the same values under the same name are stored once."""
        array = np.ascontiguousarray(values)
        scale = np.asarray(quantization.get("scale", ()), np.float32).tobytes()
        key = (name, str(array.dtype), array.shape, array.tobytes() + scale)
        if key in self._small:
            return self._small[key]
        buffer = self._buffer(np.frombuffer(array.tobytes(), np.uint8))
        made = Constant(name=name, shape=array.shape, kind=str(array.dtype), buffer=buffer, **quantization)
        self._small[key] = made
        return made

    def packed(self, name: str, shape: tuple[int, ...], data: np.ndarray, scale: np.ndarray) -> Constant:
        """An INT4 constant [out, in] from packed bytes, with one scale per row."""
        return Constant(name=name, shape=shape, kind="int4", buffer=self._buffer(data.view(np.uint8)), scale=scale)

    def streamed(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str,
        parts: Callable[[], Iterable[Part]],
        **quantization: Any,
    ) -> Constant:
        """A large constant whose bytes come from `parts` when the file is written; "int4" is two values a byte."""
        count = int(np.prod(shape, dtype=np.int64))
        size = -(-count // 2) if kind == "int4" else count * np.dtype(kind).itemsize
        index = self._buffer(np.zeros(1, np.uint8))
        self._streams[index] = Stream(size=size, parts=parts)
        return Constant(name=name, shape=shape, kind=kind, buffer=index, **quantization)

    def _buffer(self, data: np.ndarray) -> int:
        buffer = schema().BufferT()
        buffer.data = data
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def metadata(self, name: str, text: str) -> None:
        """Text that runtimes ignore and our readers use."""
        entry = schema().MetadataT()
        entry.name = name.encode()
        entry.buffer = self._buffer(np.frombuffer(text.encode(), np.uint8))
        self.model.metadata.append(entry)

    def opcode(self, name: str, version: int) -> int:
        """Index of the operator code."""
        if (name, version) not in self._codes:
            fb = schema()
            number = getattr(fb.BuiltinOperator, name)
            code = fb.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
            self.model.operatorCodes.append(code)
            self._codes[name, version] = len(self.model.operatorCodes) - 1
        return self._codes[name, version]

    def graph(self, name: str) -> Graph:
        """A new subgraph; the first one is what runtimes without signatures run."""
        made = Graph(self, name)
        self.model.subgraphs.append(made.subgraph)
        return made

    def write(self, path: Path, staging: Staging | None = None) -> str:
        """Write the file and return its sha256; `staging` lets a later process go on where this one ended."""
        return write_streamed(self.model, self._streams, path, staging=staging)


class Graph:
    """One subgraph under construction; tensors are numbers."""

    def __init__(self, emitter: Emitter, name: str) -> None:
        self.emitter = emitter
        self.subgraph = schema().SubGraphT()
        self.subgraph.name = name.encode()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.subgraph.inputs, self.subgraph.outputs = [], []
        self._constants: dict[int, int] = {}

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        kind: str = "float32",
        *,
        scale: float | None = None,
        zero_point: int = 0,
    ) -> int:
        """A variable tensor."""
        made = self._tensor(name, shape, kind)
        if scale is not None:
            made.quantization = _affine(np.array([scale], np.float32), zero_point, 0)
        return len(self.subgraph.tensors) - 1

    def _tensor(self, name: str, shape: tuple[int, ...], kind: str) -> Any:
        made = schema().TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), tensor_type(kind), 0
        made.hasRank = True
        self.subgraph.tensors.append(made)
        return made

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor of this subgraph."""
        return tuple(self.subgraph.tensors[tensor].shape)

    def kind(self, tensor: int) -> int:
        """Schema type code of a tensor of this subgraph."""
        code: int = self.subgraph.tensors[tensor].type
        return code

    def use(self, constant: Constant) -> int:
        """This subgraph's tensor over a constant."""
        if constant.buffer in self._constants:
            return self._constants[constant.buffer]
        scales = self.use(constant.block_scales) if constant.block_scales is not None else None
        made = self._tensor(constant.name, constant.shape, constant.kind)
        index = len(self.subgraph.tensors) - 1
        made.buffer = constant.buffer
        if scales is not None:
            made.quantization = _blockwise(scales, constant.shape[1])
        elif constant.scale.size:
            made.quantization = _affine(constant.scale, constant.zero_point, constant.axis)
        self._constants[constant.buffer] = index
        return index

    def values(self, name: str, values: np.ndarray) -> int:
        """A small constant's tensor."""
        return self.use(self.emitter.constant(name, values))

    def op(
        self,
        name: str,
        inputs: list[int],
        outputs: list[int],
        options: str | None = None,
        *,
        version: int = 1,
        **values: Any,
    ) -> None:
        """Append an operator.

        Args:
            options: Name of its options table, filled from `values`.
        """
        fb = schema()
        made = fb.OperatorT()
        made.opcodeIndex = self.emitter.opcode(name, version)
        made.inputs, made.outputs = inputs, outputs
        if options is not None:
            filled = getattr(fb, f"{options}T")()
            for key, value in values.items():
                assert hasattr(filled, key), (options, key)
                setattr(filled, key, value)
            made.builtinOptions = filled
            made.builtinOptionsType = getattr(fb.BuiltinOptions, options)
        self.subgraph.operators.append(made)

    def sign(self, key: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Make the subgraph callable under `key`."""
        fb = schema()
        definition = fb.SignatureDefT()
        definition.signatureKey = key.encode()
        definition.subgraphIndex = len(self.emitter.model.subgraphs) - 1
        definition.inputs = [_entry(fb, name, index) for name, index in inputs.items()]
        definition.outputs = [_entry(fb, name, index) for name, index in outputs.items()]
        self.emitter.model.signatureDefs.append(definition)
        self.subgraph.inputs, self.subgraph.outputs = list(inputs.values()), list(outputs.values())


def _entry(fb: Any, name: str, index: int) -> Any:
    entry = fb.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def _affine(scale: np.ndarray, zero_point: int, axis: int) -> Any:
    parameters = schema().QuantizationParametersT()
    parameters.scale = np.asarray(scale, np.float32)
    parameters.zeroPoint = np.full(len(parameters.scale), zero_point, np.int64)
    parameters.quantizedDimension = axis
    return parameters


def _blockwise(scales: int, block: int) -> Any:
    fb = schema()
    details = fb.BlockwiseQuantizationT()
    details.scales, details.zeroPoints, details.blockSize = scales, -1, block
    parameters = fb.QuantizationParametersT()
    parameters.details = details
    parameters.detailsType = fb.QuantizationDetails.BlockwiseQuantization
    return parameters
