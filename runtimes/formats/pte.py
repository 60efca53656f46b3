"""Read the structure of a `.pte` file into plain values, without running it and without trusting a number in it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.artifact import LayerFacts
from edge_deploy.core.errors import BadInput
from runtimes.formats.flat_table import FlatTable, root_table
from runtimes.formats.ptd_file import NamedWeight, map_named_weights
from runtimes.formats.pte_names import NAMES_METHOD, decode_names
from runtimes.formats.xnnpack_graph import XnnNode, read_xnnpack

__all__ = ["Method", "Operator", "PteFile", "PteTensor", "read_facts", "read_pte"]

_IDENTIFIERS = (b"ET12",)
_EXTENDED = struct.Struct("<4sIQQQ")
_NUMBERS = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
    15: "bfloat16", 27: "uint16", 28: "uint32", 29: "uint64",
}  # fmt: skip
_BYTES = {
    "uint8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "bool": 1,
}
_BYTES |= {"bfloat16": 2, "uint16": 2, "uint32": 4, "uint64": 8}
_TENSOR, _KERNEL, _DELEGATE = 5, 1, 2  # members of the unions KernelTypes and InstructionArguments
MOST_INSTRUCTIONS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PteTensor:
    """A tensor value of a method.

    Attributes:
        bytes: Where it is constant: the size of its data; 0 for one that is planned or an input.
        key: Name of its data when that lies outside the file.
    """

    dtype: str
    shape: tuple[int, ...]
    is_dynamic: bool = False
    constant: int = 0
    bytes: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One instruction, or one node inside an XNNPACK delegate.

    Attributes:
        layer: The name the file gives it; else the operator and its number.
        weight_key: sha256 that names an XNNPACK weight's data; empty without one.
        weight_bytes: Bytes of the weights in this file; -1 when they lie in another file.
    """

    layer: str
    op: str
    runs_on: str
    weight_dtype: str | None = None
    weight_count: int = 0
    weight_bytes: int = 0
    weight_key: str = ""
    granularity: Any = "none"
    activation_dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """An entry point: what it takes and gives, and the memory it plans.

    Attributes:
        planned_bytes: Sum of its activation buffers.
        operators: Calls of portable kernels by name, with counts; moves and jumps are left out.
        delegates: Identifier of each delegate and the bytes of its payload, in order.
    """

    name: str
    inputs: tuple[PteTensor, ...]
    outputs: tuple[PteTensor, ...]
    planned_bytes: int
    operators: dict[str, int] = field(default_factory=dict)
    delegates: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PteFile:
    """What `read_pte` found.

    Attributes:
        operators: Of the method "forward", or of the first one, in order of execution.
        named_bytes: Bytes of named data inside the file, by key.
        external: Keys of data that must come from a `.ptd`.
    """

    bytes: int
    methods: tuple[Method, ...]
    operators: tuple[Operator, ...]
    constant_bytes: int
    named_bytes: dict[str, int]
    external: tuple[str, ...]

    @property
    def main(self) -> Method:
        """The method that inference calls."""
        return next((method for method in self.methods if method.name == "forward"), self.methods[0])


def read_facts(path: Path) -> tuple[LayerFacts, ...]:
    """What each layer of a `.pte` is: XNNPACK's own types inside delegates, kernels and constants outside.

    Weights that lie in a `.ptd` of the same name beside the file are looked up there; a packed one counts as stored.

    Raises:
        BadInput: The file, or the `.ptd`, is damaged.
    """
    file = read_pte(path)
    beside: dict[str, NamedWeight] = {}
    data = path.with_suffix(".ptd")
    if file.external and data.is_file():
        beside = map_named_weights(data)
    return tuple(_facts(operator, beside) for operator in file.operators)


def _facts(operator: Operator, beside: dict[str, NamedWeight]) -> LayerFacts:
    size, dtype = operator.weight_bytes, operator.weight_dtype
    if size < 0:
        found = beside.get(operator.weight_key)
        size = found.stored if found is not None else 0
        if found is not None and found.stored < found.size:
            dtype = "int4"
    return LayerFacts(
        layer=operator.layer,
        op=operator.op,
        weight_dtype=dtype,
        weight_bits=8 * size / operator.weight_count if operator.weight_count else 0.0,
        weight_count=operator.weight_count,
        weight_bytes=size,
        granularity=operator.granularity,
        activation_dtype=operator.activation_dtype,
        runs_on=operator.runs_on,
    )


def read_pte(path: Path) -> PteFile:
    """The structure of a `.pte` file.

    Raises:
        BadInput: It cannot be read, or is not a whole ExecuTorch program.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    return _Reader(data, str(path)).file()


class _Reader:
    """The parts of one file that reading an instruction needs."""

    def __init__(self, data: bytes, where: str) -> None:
        if len(data) < 16 or data[4:8] not in _IDENTIFIERS:
            raise BadInput(f"{where}: is not an ExecuTorch program: bytes 4 to 8 must be {_IDENTIFIERS[0]!r}.")
        self.data, self.where = data, where
        self.base, program = 0, data
        if data[8:12] == b"eh00":
            if len(data) < 8 + _EXTENDED.size:
                raise BadInput(f"{where}: ends inside its header; get it again.")
            _, _, program_bytes, self.base, _ = _EXTENDED.unpack_from(data, 8)
            if program_bytes > len(data) or self.base > len(data):
                raise BadInput(f"{where}: {len(data)} bytes, its header promises more; it is cut off, get it again.")
            program = data[:program_bytes]
        self.root = root_table(memoryview(program), where=where)
        self.segments = [(entry.number(0, "u64"), entry.number(1, "u64")) for entry in self.root.tables(4)]
        constant = self.root.table(5)
        self.constant_segment = constant.number(0, "u32") if constant is not None else 0
        self.constant_offsets = constant.vector(1, "u64") if constant is not None else np.empty(0, np.uint64)
        self.inline = [entry.vector(0, "u8") for entry in self.root.tables(2)]
        self.named = {entry.text(0): self.segment(entry.number(1, "u32")) for entry in self.root.tables(7)}

    def segment(self, index: int) -> memoryview:
        """The bytes of a data segment."""
        if index >= len(self.segments):
            raise self.damaged(f"segment {index} of {len(self.segments)}")
        offset, size = self.segments[index]
        start = self.base + offset
        if start + size > len(self.data):
            raise self.damaged(f"segment {index} ends at byte {start + size}")
        return memoryview(self.data)[start : start + size]

    def damaged(self, what: str) -> BadInput:
        return BadInput(f"{self.where}: {what}; the file has {len(self.data)} bytes and is damaged, get it again.")

    def file(self) -> PteFile:
        plans = list(self.root.tables(1))
        if not plans:
            raise self.damaged("no method")
        names = self._names(plans)
        plans = [plan for plan in plans if plan.text(0) != NAMES_METHOD] or plans
        methods = tuple(self._method(plan) for plan in plans)
        chosen = next((plan for plan in plans if plan.text(0) == "forward"), plans[0])
        operators = _named(self._operators(chosen), names)
        external = tuple(operator.weight_key for operator in operators if operator.weight_bytes < 0)
        constants = len(self.segment(self.constant_segment)) if len(self.constant_offsets) > 1 else 0
        return PteFile(
            bytes=len(self.data),
            methods=methods,
            operators=operators,
            constant_bytes=constants + sum(len(part) for part in self.inline),
            named_bytes={key: len(part) for key, part in self.named.items()},
            external=external,
        )

    def _names(self, plans: list[FlatTable]) -> dict[str, str]:
        plan = next((plan for plan in plans if plan.text(0) == NAMES_METHOD), None)
        if plan is None:
            return {}
        values = self._values(plan)
        outputs = [values[index] for index in plan.vector(4, "i32") if 0 <= index < len(values)]
        if len(outputs) != 1 or outputs[0] is None or not outputs[0].constant:
            return {}
        return decode_names(bytes(self._constant(outputs[0].constant, outputs[0].bytes)))

    def _constant(self, index: int, size: int) -> memoryview | bytes:
        if len(self.constant_offsets):
            if index >= len(self.constant_offsets):
                raise self.damaged(f"constant {index} of {len(self.constant_offsets)}")
            whole = self.segment(self.constant_segment)
            start = int(self.constant_offsets[index])
            if start + size > len(whole):
                raise self.damaged(f"constant {index} ends outside its segment")
            return whole[start : start + size]
        if index >= len(self.inline):
            raise self.damaged(f"constant {index} of {len(self.inline)}")
        return self.inline[index].tobytes()[:size]

    def _values(self, plan: FlatTable) -> list[PteTensor | None]:
        return [self._tensor(entry) for entry in plan.tables(2)]

    def _tensor(self, value: FlatTable) -> PteTensor | None:
        table = value.table(1) if value.number(0, "u8") == _TENSOR else None
        if table is None:
            return None
        number = table.number(0, "i8")
        dtype = _NUMBERS.get(number, f"type {number}")
        shape = tuple(int(size) for size in table.vector(2, "i32"))
        if any(size < 0 for size in shape):
            raise self.damaged(f"a tensor of shape {shape}")
        extra = table.table(9)
        key = extra.text(1) if extra is not None and extra.number(2, "i8") == 1 else ""
        constant = table.number(5, "u32") if table.table(6) is None else 0
        size = math.prod(shape) * _BYTES.get(dtype, 1) if constant or key else 0
        is_dynamic = table.number(8, "i8") != 0
        return PteTensor(dtype=dtype, shape=shape, is_dynamic=is_dynamic, constant=constant, bytes=size, key=key)

    def _method(self, plan: FlatTable) -> Method:
        values = self._values(plan)
        counts: dict[str, int] = {}
        operators = [f"{entry.text(0)}.{entry.text(1)}" for entry in plan.tables(6)]
        for call in self._instructions(plan):
            if call.number(0, "u8") == _KERNEL:
                name = _at(operators, _body(call).number(0, "i32"), self)
                counts[name] = counts.get(name, 0) + 1
        return Method(
            name=plan.text(0),
            inputs=self._border(plan, 3, values),
            outputs=self._border(plan, 4, values),
            planned_bytes=int(plan.vector(8, "i64")[1:].sum()),
            operators=counts,
            delegates=tuple((entry.text(0), len(self._payload(entry))) for entry in plan.tables(7)),
        )

    def _border(self, plan: FlatTable, slot: int, values: list[PteTensor | None]) -> tuple[PteTensor, ...]:
        found = (_at(values, int(index), self) for index in plan.vector(slot, "i32"))
        return tuple(PteTensor(dtype="scalar", shape=()) if tensor is None else tensor for tensor in found)

    def _instructions(self, plan: FlatTable) -> list[FlatTable]:
        calls = [call for chain in plan.tables(5) for call in chain.tables(2)]
        if len(calls) > MOST_INSTRUCTIONS:
            raise self.damaged(f"{len(calls)} instructions")
        return calls

    def _payload(self, delegate: FlatTable) -> memoryview | bytes:
        reference = delegate.table(1)
        if reference is None:
            return b""
        index = reference.number(1, "u32")
        if reference.number(0, "i8") == 1:
            return self.segment(index)
        inline = [entry.vector(0, "u8") for entry in self.root.tables(3)]
        found: bytes = _at(inline, index, self).tobytes()
        return found

    def _operators(self, plan: FlatTable) -> list[tuple[str, Operator]]:
        """Keys of `pte_names` with operators that are named by kind only."""
        values = self._values(plan)
        operators = [(entry.text(0), entry.text(1)) for entry in plan.tables(6)]
        delegates = list(plan.tables(7))
        found: list[tuple[str, Operator]] = []
        calls: dict[str, int] = {}
        for call in self._instructions(plan):
            kind = call.number(0, "u8")
            if kind == _KERNEL:
                name, overload = _at(operators, _body(call).number(0, "i32"), self)
                number = calls[name] = calls.get(name, -1) + 1
                arguments = [_at(values, int(index), self) for index in _body(call).vector(1, "i32")]
                found.append((f"{name}#{number}", _kernel(f"{name}.{overload}", arguments)))
            elif kind == _DELEGATE:
                delegate = _at(delegates, _body(call).number(0, "i32"), self)
                found += self._delegate(delegate)
        return found

    def _delegate(self, delegate: FlatTable) -> list[tuple[str, Operator]]:
        backend = delegate.text(0)
        if backend != "XnnpackBackend":
            return [("", Operator(layer="", op=f"delegate {backend}", runs_on=backend, activation_dtype="unknown"))]
        nodes = read_xnnpack(self._payload(delegate), where=f"{self.where}: XNNPACK delegate")
        return [(str(node.handle), self._xnn_operator(node)) for node in nodes]

    def _xnn_operator(self, node: XnnNode) -> Operator:
        size = node.weight_bytes
        if size < 0 and node.weight_key in self.named:
            size = len(self.named[node.weight_key])
        return Operator(
            layer="",
            op=f"{node.op} (XNNPACK)",
            runs_on="XNNPACK",
            weight_dtype=node.weight_dtype,
            weight_count=node.weight_count,
            weight_bytes=size,
            weight_key=node.weight_key,
            granularity=node.granularity,
            activation_dtype=node.output_dtype,
        )


def _at(values: Any, index: int, reader: _Reader) -> Any:
    if not 0 <= index < len(values):
        raise reader.damaged(f"an index {index} into {len(values)} entries")
    return values[index]


def _body(call: FlatTable) -> FlatTable:
    body = call.table(1)
    if body is None:
        raise BadInput(f"{call.where}: an instruction without content; the file is damaged, get it again.")
    return body


_PER_BYTE = {"embedding_4bit": 2, "embedding_2bit": 4}


def _kernel(name: str, arguments: list[PteTensor | None]) -> Operator:
    """A portable kernel call; its weight is its largest constant of at least two dimensions."""
    tensors = [tensor for tensor in arguments if tensor is not None]
    weights = [tensor for tensor in tensors if (tensor.constant or tensor.key) and len(tensor.shape) >= 2]
    output = tensors[-1].dtype if tensors else "unknown"
    libraries = {"quantized_decomposed": "quantized kernels", "cortex_m": "CMSIS-NN"}
    library = libraries.get(name.partition("::")[0], "portable")
    if not weights:
        return Operator(layer="", op=name, runs_on=library, activation_dtype=output)
    weight = max(weights, key=lambda tensor: tensor.bytes)
    per_byte = next((count for word, count in _PER_BYTE.items() if word in name), 1)
    is_embedding = "embedding" in name and weight.dtype in ("int8", "uint8")
    return Operator(
        layer="",
        op=name,
        runs_on=library,
        weight_dtype=weight.dtype if per_byte == 1 else f"int{8 // per_byte}",
        weight_count=math.prod(weight.shape) * per_byte,
        weight_bytes=-1 if weight.key else weight.bytes,
        weight_key=weight.key,
        granularity="per-row" if is_embedding else "none",
        activation_dtype=output,
    )


def _named(operators: list[tuple[str, Operator]], names: dict[str, str]) -> tuple[Operator, ...]:
    """Give names: those with weights first, because the conversions around a layer carry its debug handle too."""
    chosen: dict[int, str] = {}
    taken: set[str] = set()
    order = sorted(range(len(operators)), key=lambda index: (_rank(operators[index][1]), index))
    for index in order:
        key, operator = operators[index]
        name = names.get(key, "")
        if not name or name in taken:
            kind = operator.op.split(" ")[0].rpartition("::")[2]
            name = f"{kind}@{index}"
        chosen[index] = name
        taken.add(name)
    return tuple(replace(operator, layer=chosen[index]) for index, (_, operator) in enumerate(operators))


def _rank(operator: Operator) -> int:
    if operator.weight_count:
        return 0
    return 2 if operator.op.startswith(("Convert", "StaticTranspose")) else 1
