"""Build the flatbuffer of a half: chosen operators, the tensors and constants they use, everything renumbered."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from converters.tflite.flatbuffer import schema
from edge_deploy.core.errors import Unsupported

__all__ = ["HalfBuilder", "Piece"]

# Describes the inputs and outputs of the whole, by their number.
_DROPPED_METADATA = (b"TFLITE_METADATA",)
_SUBGRAPH_FIELDS = (
    "subgraph",
    "initSubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "decompositionSubgraphIndex",
    "updateComputationSubgraphIndex",
    "comparatorSubgraphIndex",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One subgraph of a half.

    Attributes:
        subgraph: Number in the whole.
        operators: Numbers in the whole's subgraph, ascending.
        inputs: Signature name and tensor number in the whole.
        outputs: Likewise; a tensor may have several names.
    """

    signature: str
    subgraph: int
    operators: tuple[int, ...]
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]


class HalfBuilder:
    """Builds one half of `model`, which stays as it is; buffers are shared with it.

    Args:
        names: Unique tensor names of every subgraph: they are written, so that layers keep their names.
    """

    def __init__(self, model: Any, names: Sequence[Sequence[str]]) -> None:
        self._model, self._names = model, names
        self._made = schema().ModelT()
        self._made.version, self._made.description = model.version, model.description
        self._made.operatorCodes, self._made.buffers = [], [schema().BufferT()]
        self._made.subgraphs, self._made.signatureDefs, self._made.metadata = [], [], []
        self._buffers: dict[int, int] = {}
        self._opcodes: dict[int, int] = {}
        self._bodies: dict[int, int] = {}

    def build(self, pieces: Sequence[Piece], *, name: str) -> Any:
        """The `ModelT` of these subgraphs.

        Raises:
            Unsupported: A tensor's values stand in another file.
        """
        self._made.subgraphs = [None] * len(pieces)  # signatures first: the first subgraph is the primary one
        for number, piece in enumerate(pieces):
            graph = self._model.subgraphs[piece.subgraph]
            copied = _Subgraph(self, graph, self._names[piece.subgraph])
            made = copied.of(
                piece.operators, [index for _, index in piece.inputs], [index for _, index in piece.outputs]
            )
            made.name = (graph.name or b"main") + b"/" + name.encode() if isinstance(graph.name, bytes) else name
            self._made.subgraphs[number] = made
            self._made.signatureDefs.append(self._signature(piece, number, copied))
        for entry in self._model.metadata or ():
            if entry.name not in _DROPPED_METADATA:
                kept = copy.copy(entry)
                kept.buffer = self.buffer(int(entry.buffer))
                self._made.metadata.append(kept)
        return self._made

    def _signature(self, piece: Piece, number: int, copied: _Subgraph) -> Any:
        definition = schema().SignatureDefT()
        definition.signatureKey, definition.subgraphIndex = piece.signature.encode(), number
        definition.inputs = [_entry(name, copied.tensor(index)) for name, index in piece.inputs]
        definition.outputs = [_entry(name, copied.tensor(index)) for name, index in piece.outputs]
        return definition

    def buffer(self, old: int) -> int:
        """Number in the half of a buffer of the whole."""
        if old not in self._buffers:
            data = self._model.buffers[old].data
            empty = data is None or len(data) == 0
            self._buffers[old] = 0 if empty else len(self._made.buffers)
            if not empty:
                self._made.buffers.append(self._model.buffers[old])
        return self._buffers[old]

    def opcode(self, old: int) -> int:
        """Number in the half of an operator code of the whole."""
        if old not in self._opcodes:
            self._opcodes[old] = len(self._made.operatorCodes)
            self._made.operatorCodes.append(self._model.operatorCodes[old])
        return self._opcodes[old]

    def body(self, old: int) -> int:
        """Number in the half of a subgraph that an operator calls; it is copied whole."""
        if old not in self._bodies:
            self._bodies[old] = len(self._made.subgraphs)
            self._made.subgraphs.append(None)
            graph = self._model.subgraphs[old]
            copied = _Subgraph(self, graph, self._names[old])
            made = copied.of(range(len(graph.operators)), graph.inputs, graph.outputs)
            made.name = graph.name
            self._made.subgraphs[self._bodies[old]] = made
        return self._bodies[old]


class _Subgraph:
    """Copies operators of one subgraph with the tensors they touch."""

    def __init__(self, builder: HalfBuilder, graph: Any, names: Sequence[str]) -> None:
        self._builder, self._graph, self._names = builder, graph, names
        self._made = schema().SubGraphT()
        self._made.tensors, self._made.operators = [], []
        self._place: dict[int, int] = {}

    def of(self, operators: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Any:
        self._made.inputs = [self.tensor(int(index)) for index in inputs]
        for place in operators:
            self._made.operators.append(self._operator(self._graph.operators[place]))
        self._made.outputs = list(dict.fromkeys(self.tensor(int(index)) for index in outputs))
        return self._made

    def tensor(self, old: int) -> int:
        """Number in the half of a tensor of the whole; -1, an input left out, stays."""
        if old < 0:
            return old
        if old not in self._place:
            tensor = copy.copy(self._graph.tensors[old])
            if getattr(tensor, "externalBuffer", 0):
                raise Unsupported(f"tensor {self._names[old]}: its values stand in another file; they cannot be cut.")
            self._place[old] = len(self._made.tensors)
            self._made.tensors.append(tensor)
            tensor.name = self._names[old].encode()
            tensor.buffer = self._builder.buffer(int(tensor.buffer))
            self._move_blockwise(tensor)
        return self._place[old]

    def _move_blockwise(self, tensor: Any) -> None:
        """The scales of blockwise weights are a tensor of their own."""
        details = getattr(tensor.quantization, "details", None)
        if details is None or not hasattr(details, "scales"):
            return
        tensor.quantization = copy.copy(tensor.quantization)
        moved = tensor.quantization.details = copy.copy(details)
        moved.scales = self.tensor(int(details.scales))
        if details.zeroPoints is not None and details.zeroPoints > 0:
            moved.zeroPoints = self.tensor(int(details.zeroPoints))

    def _operator(self, old: Any) -> Any:
        operator = copy.copy(old)
        operator.opcodeIndex = self._builder.opcode(int(old.opcodeIndex))
        operator.inputs = [self.tensor(int(index)) for index in old.inputs]
        operator.outputs = [self.tensor(int(index)) for index in old.outputs]
        if old.intermediates is not None:
            operator.intermediates = [self.tensor(int(index)) for index in old.intermediates]
        operator.builtinOptions = self._options(old.builtinOptions)
        operator.builtinOptions2 = self._options(old.builtinOptions2)
        return operator

    def _options(self, old: Any) -> Any:
        fields = [field for field in _SUBGRAPH_FIELDS if hasattr(old, field)]
        if hasattr(old, "branchSubgraphIndices"):
            raise Unsupported("an operator chooses among several subgraphs (STABLEHLO_CASE): it cannot be cut.")
        if not fields:
            return old
        options = copy.copy(old)
        for field in fields:
            if getattr(old, field) >= 0:
                setattr(options, field, self._builder.body(int(getattr(old, field))))
        return options


def _entry(name: str, index: int) -> Any:
    entry = schema().TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry
