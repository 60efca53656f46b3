"""Layers among floats with narrow weights: float16, INT8 or packed INT4, widened at load or multiplied as they are.

Weight-only and float16 weights pass a DEQUANTIZE on their way to a float kernel ("stored only"). Dynamic layers read
them as they are: the kernel quantizes its input with a scale of its own for each inference. Rows of tables are
widened after they were looked up, so that a table stays narrow in memory whatever the layers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converters.quantize.scale_search import weight_scales
from converters.quantize.uniform import quantize_symmetric
from converters.support import lookup
from converters.tflite.choice import FLOAT, Choice
from converters.tflite.flatbuffer import (
    add_opcode,
    add_tensor,
    schema,
    set_affine,
    set_constant,
    tensor_name,
    tensor_type,
)
from converters.tflite.lookups import TableStore, cannot_be_table, is_lookup, rewrite_lookup, table_slot
from converters.tflite.operators import INT4_VERSIONS, OPERATORS
from converters.tflite.structure import Node, View, views
from edge_deploy.core.errors import Refusal
from edge_deploy.core.precision import form_word
from edge_deploy.core.quant_spec import LayerSettings, QuantSpec

__all__ = ["choose_narrow", "narrow_weights", "symmetric_only", "weight_slot"]

# Versions whose kernels take INT8 weights under float activations.
HYBRID_VERSIONS = {"FULLY_CONNECTED": 12, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6, "TRANSPOSE_CONV": 5, "BATCH_MATMUL": 4}
# Of DEQUANTIZE: float16 constants, scales by channel, packed INT4.
DEQUANTIZE_VERSIONS = {16: 3, 8: 5, 4: 6}
# A stored float operand of at least this many values is weights in all but name and must not stay float unnoticed.
LARGE_CONSTANT = 1024
LARGEST_HALF = 65504.0


def weight_slot(view: View, node: Node) -> int | None:
    """Which input holds the weights of an operator that has them by nature, stored in float; None without."""
    rule = OPERATORS.get(node.kind)
    slot = rule.weight if rule is not None and rule.kind == "weighted" else {"BATCH_MATMUL": 1}.get(node.kind)
    if slot is None or slot >= len(node.inputs):
        return None
    return slot if view.is_float(node.inputs[slot]) and view.is_constant(node.inputs[slot]) else None


def symmetric_only(kind: str, bits: int, activations: str) -> bool:
    """Whether the stored weights must leave out the most negative value.

    LiteRT's own kernel of a dynamic INT4 FULLY_CONNECTED, which runs where XNNPACK does not, computes garbage of a -8
    as soon as there are 32 inputs and four outputs (ai-edge-litert 2.3, x86).
    """
    return bits == 8 or (bits == 4 and kind in INT4_VERSIONS and activations == "dynamic")


def choose_narrow(view: View, node: Node, settings: LayerSettings, spec: QuantSpec) -> Choice | Refusal:
    """What an operator that computes among floats becomes.

    Args:
        settings: Asked of it; its activations are float or dynamic.
    """
    asked = settings.weight_bits
    if asked == 32:
        return FLOAT
    wanted = Choice(
        bits=asked,
        asked=asked,
        activations="float" if asked == 16 or is_lookup(view, node) else settings.activations,
        one_scale=settings.weight_scale == "tensor",
    )
    reason = _obstacle(view, node, wanted)
    if reason is None:
        return FLOAT
    if not reason:
        return wanted
    can_be_int8 = asked == 4 and _obstacle(view, node, replace(wanted, bits=8)) == ""
    if spec.fallback_bits == 32:
        return replace(FLOAT, asked=asked, reason=f"{reason}; left in float as permitted")
    if spec.fallback_bits == 8 and can_be_int8:
        return replace(wanted, bits=8, reason=f"{reason}; INT8 as permitted")
    remedy = "pass --fallback int8" if can_be_int8 else "pass --fallback float32 to leave it in float"
    return Refusal(layer=node.layer, op=node.kind, reason=reason, remedy=remedy)


def _obstacle(view: View, node: Node, wanted: Choice) -> str | None:
    """Why the operator cannot become what is wanted; empty when it can, None when it has nothing to make narrow."""
    if is_lookup(view, node):
        return _cannot_be_rows(view, node, wanted)
    if weight_slot(view, node) is not None:
        return _cannot_be_narrow(view, node, wanted)
    largest = max((view.values(i).size for i in view.float_inputs(node) if view.is_constant(i)), default=0)
    if largest < LARGE_CONSTANT:
        return None
    reason = _table_reason(wanted, "*")
    return f"{reason} ({largest} values)" if reason else ""


def _cannot_be_rows(view: View, node: Node, wanted: Choice) -> str:
    if wanted.bits == 16:
        return _beyond_half(view.values(node.inputs[table_slot(node)]))
    return cannot_be_table(view, node, wanted.bits)


def _cannot_be_narrow(view: View, node: Node, wanted: Choice) -> str:
    reason = _table_reason(wanted, node.kind)
    slot = weight_slot(view, node)
    assert slot is not None
    if reason:
        return reason
    if wanted.bits == 16:
        return _beyond_half(view.values(node.inputs[slot]))
    if wanted.bits == 4 and wanted.activations == "dynamic" and int(view.tensor(node.inputs[slot]).shape[-1]) % 2:
        return "a row of its packed INT4 weights would end within a byte"
    return ""


def _table_reason(wanted: Choice, operator: str) -> str:
    entry = lookup("tflite", form_word(wanted.bits, wanted.activations), operator)
    return entry.reason if entry.status == "refused" else ""


def _beyond_half(values: np.ndarray) -> str:
    largest = float(np.abs(values).max(initial=0.0))
    return f"its largest weight {largest:.3g} is beyond float16" if largest > LARGEST_HALF else ""


def narrow_weights(model: Any, choices: Mapping[int, Choice], spec: QuantSpec) -> None:
    """Give float operators of a model narrow weights, in place; unused constants stay for `compact`.

    Args:
        choices: By `id` of the operator, which outlives a change of its place; operators without are left alone.
    """
    store = _Store(model=model, tables=TableStore(model, spec))
    for view in views(model):
        operators: list[Any] = []
        for node in view.nodes:
            choice = choices.get(id(node.operator), FLOAT)
            if choice.is_narrow:
                operators += store.rewritten(view, node, choice)
            else:
                operators.append(node.operator)
        view.graph.operators = operators


@dataclass(slots=True, kw_only=True)
class _Store:
    """Narrow constants of one model; what several operators read at one width is stored once."""

    model: Any
    tables: TableStore
    buffers: dict[tuple[int, int, bool, int, bool], int] = field(default_factory=dict)
    widened: dict[tuple[int, int, int, bool], int] = field(default_factory=dict)

    def rewritten(self, view: View, node: Node, choice: Choice) -> list[Any]:
        """The operators that take the place of one."""
        if is_lookup(view, node):
            if choice.bits == 16:
                return self._half_rows(view, node)
            return rewrite_lookup(view, node, self.tables.table(view, node, choice.bits))
        slot = weight_slot(view, node)
        if choice.activations == "dynamic" and slot is not None:
            return [self._dynamic(view, node, slot, choice)]
        slots = [slot] if slot is not None else self._large_slots(view, node)
        before = [made for each in slots for made in self._widen(view, node, each, choice)]
        return [*before, node.operator]

    def _large_slots(self, view: View, node: Node) -> list[int]:
        return [
            slot
            for slot, index in enumerate(node.inputs)
            if view.is_float(index) and view.is_constant(index) and view.values(index).size >= LARGE_CONSTANT
        ]

    def _half_rows(self, view: View, node: Node) -> list[Any]:
        """A look-up in float16 rows, whose result alone is widened."""
        slot, result = table_slot(node), node.outputs[0]
        table = self._narrow(view, node, slot, Choice(bits=16, asked=16, activations="float"))
        source = view.tensor(result)
        name = tensor_name(source)
        rows = add_tensor(view.graph, name, tuple(int(size) for size in source.shape), "float16", like=source)
        # The first output's name is the layer's name, so it stays with the look-up.
        source.name = f"{name}_widened".encode()
        node.operator.inputs = [table if place == slot else index for place, index in enumerate(node.inputs)]
        node.operator.outputs = [rows]
        return [node.operator, self._dequantize(rows, result, 16)]

    def _dynamic(self, view: View, node: Node, slot: int, choice: Choice) -> Any:
        operator = node.operator
        weights = self._narrow(view, node, slot, choice)
        operator.inputs = [weights if place == slot else index for place, index in enumerate(node.inputs)]
        old = self.model.operatorCodes[operator.opcodeIndex].version
        version = max(old, HYBRID_VERSIONS[node.kind], INT4_VERSIONS[node.kind] if choice.bits == 4 else 1)
        operator.opcodeIndex = add_opcode(self.model, node.kind, version)
        if node.kind in ("FULLY_CONNECTED", "BATCH_MATMUL"):
            # An asymmetric scale for each inference and row halves the step of one-sided (ReLU) activations.
            operator.builtinOptions.asymmetricQuantizeInputs = True
        return operator

    def _widen(self, view: View, node: Node, slot: int, choice: Choice) -> list[Any]:
        """The DEQUANTIZE in front of the operator; none where another operator's is read too."""
        key = (view.index, node.inputs[slot], choice.bits, _has_one_scale(node, choice))
        made = []
        if key not in self.widened:
            source = view.tensor(node.inputs[slot])
            narrow = self._narrow(view, node, slot, choice)
            wide = add_tensor(
                view.graph, f"{tensor_name(source)}_widened", tuple(int(size) for size in source.shape), "float32"
            )
            self.widened[key] = wide
            made = [self._dequantize(narrow, wide, choice.bits)]
        operator = node.operator
        operator.inputs = [self.widened[key] if place == slot else index for place, index in enumerate(operator.inputs)]
        return made

    def _narrow(self, view: View, node: Node, slot: int, choice: Choice) -> int:
        """Index of a narrow copy of the float constant in this slot."""
        index = node.inputs[slot]
        source, values = view.tensor(index), view.values(index)
        tensor = type(source)()
        tensor.name, tensor.shape, tensor.hasRank = source.name, source.shape, source.hasRank
        one_scale = _has_one_scale(node, choice)
        axis = 0 if one_scale else OPERATORS[node.kind].axis
        narrow = symmetric_only(node.kind, choice.bits, choice.activations)
        key = (int(source.buffer), choice.bits, one_scale, axis, narrow)
        kind = "float16" if choice.bits == 16 else f"int{choice.bits}"
        if choice.bits == 16:
            stored = values.astype(np.float16)
        else:
            along = None if one_scale else axis
            scales = weight_scales(values, axis=along, bits=choice.bits, narrow=narrow)
            stored = quantize_symmetric(values, scales, axis=along, bits=choice.bits, narrow=narrow)
            set_affine(tensor, scales, np.zeros(scales.size), axis=axis)
        if key in self.buffers:
            tensor.type, tensor.buffer = tensor_type(kind), self.buffers[key]
        else:
            set_constant(self.model, tensor, stored, kind)
            self.buffers[key] = tensor.buffer
        view.graph.tensors.append(tensor)
        return len(view.graph.tensors) - 1

    def _dequantize(self, source: int, result: int, bits: int) -> Any:
        fb = schema()
        operator = fb.OperatorT()
        operator.opcodeIndex = add_opcode(self.model, "DEQUANTIZE", DEQUANTIZE_VERSIONS[bits])
        operator.inputs, operator.outputs = [source], [result]
        operator.builtinOptionsType = fb.BuiltinOptions.DequantizeOptions
        operator.builtinOptions = fb.DequantizeOptionsT()
        return operator


def _has_one_scale(node: Node, choice: Choice) -> bool:
    rule = OPERATORS.get(node.kind)
    if choice.activations == "dynamic" and node.kind == "DEPTHWISE_CONV_2D":
        return False  # its kernel takes one for each channel only
    return choice.bits == 16 or choice.one_scale or rule is None or rule.kind != "weighted"
