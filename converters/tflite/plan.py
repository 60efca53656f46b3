"""Decide, before anything is written: which operators become integer, at which width, and every tensor's scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from converters.quantize.ranges import Range
from converters.quantize.uniform import SMALLEST_SCALE, Affine, affine_from_range, symmetric_scales
from converters.support import lookup
from converters.tflite.calibrate import Ranges
from converters.tflite.choice import FLOAT, Choice
from converters.tflite.flatbuffer import schema, tensor_name
from converters.tflite.narrow import choose_narrow
from converters.tflite.operators import OPERATORS, TYPE_BLIND
from converters.tflite.pool_pads import LOWEST, is_lowest_pad
from converters.tflite.structure import Node, View, twin_of
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.quant_spec import QuantSpec

__all__ = ["Choice", "Plan", "choose", "plan_scales"]


@dataclass(slots=True, kw_only=True)
class Plan:
    """Every decision about a model.

    Attributes:
        choices: By (subgraph, position) of the operators that touch float tensors.
        affine: Scale and zero point of activations that become INT8, by (subgraph, tensor).
        constants: The same for constant operands that are no per-channel weights, by (subgraph, position, input slot).
        pinned: Operators that write their output with another scale than the tensor's readers share: it is
            requantized right after.
    """

    choices: dict[tuple[int, int], Choice]
    affine: dict[tuple[int, int], Affine] = field(default_factory=dict)
    constants: dict[tuple[int, int, int], Affine] = field(default_factory=dict)
    pinned: dict[tuple[int, int], Affine] = field(default_factory=dict)

    @property
    def activation_bits(self) -> int:
        """16 where the operators compute on INT16 activations, which then have zero point 0; else 8."""
        return 16 if any(choice.activations == "int16" for choice in self.choices.values()) else 8

    def is_integer(self, node: Node) -> bool:
        """Whether the operator works on integers that stand for floats."""
        choice = self.choices.get(node.key)
        return choice is not None and choice.is_integer


def choose(graphs: tuple[View, ...], spec: QuantSpec) -> dict[tuple[int, int], Choice]:
    """Width of every operator that touches float tensors.

    Raises:
        Unsupported: Operators that cannot become what was asked and may not fall back, each by layer name.
        BadInput: Weights hold NaN or infinity.
    """
    choices: dict[tuple[int, int], Choice] = {}
    refusals: dict[str, Refusal] = {}
    problems: dict[str, str] = {}
    for view in graphs:
        for node in view.nodes:
            if node.kind in TYPE_BLIND or not any(view.is_float(i) for i in (*node.inputs, *node.outputs)):
                continue
            for index in node.inputs if not is_lowest_pad(view.model, view.graph, node.operator) else ():
                if view.is_float(index) and view.is_constant(index) and not np.isfinite(view.values(index)).all():
                    problems[node.layer] = (
                        f"layer {node.layer} ({node.kind}): constant {tensor_name(view.tensor(index))} holds NaN or "
                        "infinity; repair or retrain the model."
                    )
            result = _choose_one(view, node, spec)
            if isinstance(result, Refusal):
                refusals.setdefault(node.layer, result)
            else:
                choices[node.key] = result
    if problems:
        raise BadInput(*problems.values())
    kinds = {choice.activations for choice in choices.values() if choice.is_integer}
    if len(kinds) > 1:
        for view in graphs:
            for node in view.nodes:
                if node.key in choices and choices[node.key].activations == "int16":
                    refusals.setdefault(node.layer, Refusal(layer=node.layer, op=node.kind, reason=ONE_KIND))
    if refusals:
        raise Unsupported(refusals=tuple(refusals.values()))
    return choices


ONE_KIND = "a file has INT8 activations or INT16 ones, not both; give all integer layers the same"


def _choose_one(view: View, node: Node, spec: QuantSpec) -> Choice | Refusal:
    if node.kind in ("CAST", "QUANTIZE", "DEQUANTIZE"):
        return FLOAT  # the border between integers that are no quantized floats, and floats
    if node.kind == "EMBEDDING_LOOKUP" and not view.is_float(node.inputs[1]):
        return FLOAT  # rows of a table that is quantized already; they come out as floats
    rule = OPERATORS.get(node.kind)
    is_weighted = rule is not None and (rule.kind == "weighted" or stored_operand(view, node) is not None)
    settings = spec.settings_for(node.layer, default=None if is_weighted or spec.weight_bits >= 16 else 8)
    if settings.activations not in ("int8", "int16"):
        return choose_narrow(view, node, settings, spec)
    if rule is not None and settings.activations == "int16":
        entry = lookup("tflite", "int16x8" if settings.weight_bits == 8 else "int16x4", node.kind)
        if entry.status == "refused":
            if spec.fallback_bits == 32:
                return replace(FLOAT, asked=8, reason=f"{entry.reason}; left in float as permitted")
            remedy = "pass --fallback float32 to leave it in float"
            return Refusal(layer=node.layer, op=node.kind, reason=entry.reason, remedy=remedy)
    if rule is None:
        if spec.fallback_bits == 32:
            return replace(FLOAT, asked=8, reason="no integer kernel known; left in float as permitted")
        return Refusal(
            layer=node.layer,
            op=node.kind,
            reason=lookup("tflite", "int8", node.kind).reason,
            remedy="pass --fallback float32 to leave such layers in float",
        )
    if _ends_in_probability(view, node) and spec.io == "float" and spec.for_device == "phone":
        # An INT8 probability resolves 1/256 only; the integer part of the graph ends at the logit instead.
        return FLOAT
    if not is_weighted:
        return Choice(bits=8, asked=8, activations=settings.activations)
    asked = settings.weight_bits
    reason = _cannot_be_integer(view, node)
    if reason:
        if spec.fallback_bits == 32:
            return replace(FLOAT, asked=asked, reason=f"{reason}; left in float as permitted")
        return Refusal(
            layer=node.layer, op=node.kind, reason=reason, remedy="pass --fallback float32 to leave it in float"
        )
    reason = _cannot_be_int4(node) if asked == 4 else ""
    if reason:
        if spec.fallback_bits is not None:
            return Choice(bits=spec.fallback_bits, asked=4, reason=f"{reason}; INT{spec.fallback_bits} as permitted")
        return Refusal(layer=node.layer, op=node.kind, reason=reason, remedy="pass --fallback int8")
    return Choice(
        bits=asked, asked=asked, activations=settings.activations, one_scale=settings.weight_scale == "tensor"
    )


def _ends_in_probability(view: View, node: Node) -> bool:
    return node.kind in ("SOFTMAX", "LOGISTIC") and node.outputs[0] in {int(i) for i in view.graph.outputs}


def stored_operand(view: View, node: Node) -> int | None:
    """Slot of a stored operand that counts as weights although the operator is none that has weights by nature."""
    slot = {"GATHER": 0, "BATCH_MATMUL": 1}.get(node.kind)
    return slot if slot is not None and view.is_constant(node.inputs[slot]) else None


def _cannot_be_integer(view: View, node: Node) -> str:
    rule = OPERATORS[node.kind]
    if rule.kind != "weighted":
        return ""
    if not view.is_constant(node.inputs[rule.weight]):
        return "its weights are computed, not stored"
    if rule.bias < len(node.inputs) and node.inputs[rule.bias] >= 0 and not view.is_constant(node.inputs[rule.bias]):
        return "its bias is computed, not stored"
    return ""


def _cannot_be_int4(node: Node) -> str:
    support = lookup("tflite", "int4", node.kind)
    return support.reason if support.status == "refused" else ""


def plan_scales(
    graphs: tuple[View, ...],
    choices: dict[tuple[int, int], Choice],
    ranges: Ranges,
    learned: Mapping[str, Affine] | None = None,
) -> Plan:
    """Scale and zero point of every tensor that becomes INT8.

    Tensors that a kernel demands to share parameters form a group; a group's range is the union of the ranges of what
    enters it. An operator whose output parameters are fixed by its kernel keeps them and is requantized where its
    readers share another scale. The same network at another batch size gets the same parameters.

    Args:
        learned: Parameters learned in training, by tensor name; they win over ranges.

    Raises:
        BadInput: Learned parameters contradict each other, name no tensor, or a range is missing.
    """
    plan = Plan(choices=choices)
    learned = dict(learned or {})
    unknown = set(learned) - {tensor_name(t) for view in graphs for t in view.graph.tensors}
    if unknown:
        raise BadInput(f"learned scales: no tensor is called {', '.join(sorted(unknown))}.")
    for view in graphs:
        twin = twin_of(view.model, view.index)
        if twin < view.index:
            _copy_plan(plan, graphs[twin], view)
        else:
            _plan_graph(plan, view, ranges, learned)
    return plan


def _copy_plan(plan: Plan, one: View, other: View) -> None:
    pairs = list(zip(one.graph.inputs, other.graph.inputs, strict=True))
    for left, right in zip(one.nodes, other.nodes, strict=True):
        pairs += list(zip(left.outputs, right.outputs, strict=True))
    for a, b in pairs:
        if (one.index, int(a)) in plan.affine:
            plan.affine[other.index, int(b)] = plan.affine[one.index, int(a)]
    for (graph, position, slot), affine in list(plan.constants.items()):
        if graph == one.index:
            plan.constants[other.index, position, slot] = affine
    for (graph, position), affine in list(plan.pinned.items()):
        if graph == one.index:
            plan.pinned[other.index, position] = affine


# RELU6 becomes a bound of 6 / scale on stored values.
SMALLEST_BOUNDED_SCALE = 2.0**-27
# Of a sum's scale to those of its terms: the kernels of ADD and SUB abort at 2^-19.
SMALLEST_SUM = 2.0**-16


# A member of a group: an activation (tensor, -1, -1), or one use of a constant (tensor, position, slot), so that a
# constant that several operators read does not tie them together.
Member: TypeAlias = tuple[int, int, int]


def _plan_graph(plan: Plan, view: View, ranges: Ranges, learned: Mapping[str, Affine]) -> None:
    groups = _Groups()
    producers = {output: node for node in view.nodes for output in node.outputs}
    for node in view.nodes:
        if not plan.is_integer(node):
            continue
        rule = OPERATORS[node.kind]
        members: list[Member] = []
        for slot, index in enumerate(node.inputs):
            if not view.is_float(index) or (rule.kind == "weighted" and slot in (rule.weight, rule.bias)):
                continue
            if not view.is_constant(index):
                members.append((index, -1, -1))
            elif slot in rule.symmetric or is_table(view, node, slot):
                plan.constants[(*node.key, slot)] = _constant_affine(view, node, slot, plan.activation_bits)
            else:
                members.append((index, node.position, slot))
        members += [(index, -1, -1) for index in node.outputs if view.is_float(index)]
        for member in members:
            groups.add(member)
        if rule.kind == "same":
            for member in members[1:]:
                groups.join(members[0], member)
    for group in groups.all():
        _plan_group(plan, view, group, producers, ranges, learned)


def is_table(view: View, node: Node, slot: int) -> bool:
    """A stored table that is looked up keeps a scale of its own: tables of one concatenation must not share one."""
    return node.kind == "GATHER" and slot == 0 and view.is_constant(node.inputs[0])


def _constant_affine(view: View, node: Node, slot: int, bits: int) -> Affine:
    values = view.values(node.inputs[slot])
    if bits == 16:
        return _affine(float(values.min()), float(values.max()), bits, SMALLEST_SCALE)
    if slot in OPERATORS[node.kind].symmetric:
        return Affine(scale=float(symmetric_scales(values, axis=None, bits=8)[0]), zero_point=0)
    return affine_from_range(float(values.min()), float(values.max()))


# What kernels with a fixed output demand of it in INT16; the others are refused.
FIXED_INT16 = Affine(scale=2.0**-15, zero_point=0)


def _affine(low: float, high: float, bits: int, smallest: float) -> Affine:
    if bits == 8:
        return affine_from_range(low, high, smallest=smallest)
    # The INT16 kernels know no zero point.
    scale = max(-low, high) / 32767
    return Affine(scale=float(np.float32(max(scale, smallest))) if scale > 0 else 1 / 32767, zero_point=0)


def _plan_group(
    plan: Plan,
    view: View,
    group: list[Member],
    producers: dict[int, Node],
    ranges: Ranges,
    learned: Mapping[str, Affine],
) -> None:
    activations = [index for index, position, _ in group if position < 0]
    told = {learned[name] for name in (tensor_name(view.tensor(i)) for i in activations) if name in learned}
    if len(told) > 1:
        names = ", ".join(tensor_name(view.tensor(i)) for i in activations)
        raise BadInput(f"learned scales: {names} must share one scale and zero point; found {len(told)} different.")
    pins: dict[int, Affine] = {}
    sources: list[Member] = []
    for member in group:
        index, position, _ = member
        node = producers.get(index) if position < 0 else None
        if node is not None and plan.is_integer(node):
            rule = OPERATORS[node.kind]
            if rule.output is not None:
                pins[index] = rule.output if plan.activation_bits == 8 else FIXED_INT16
            elif is_table(view, node, 0):
                pins[index] = plan.constants[(*node.key, 0)]
            elif rule.kind == "same":
                continue  # holds nothing that did not enter the group elsewhere
        sources.append(member)
    if told:
        shared = told.pop()
    elif sources and all(i in pins for i, _, _ in sources) and len({pins[i] for i, _, _ in sources}) == 1:
        shared = pins[sources[0][0]]
    else:
        low, high = 0.0, 0.0
        for index, _, _ in sources or group:
            own = _range(view, index, ranges)
            low, high = min(low, own.low), max(high, own.high)
        smallest = max((_smallest_scale(plan, producers.get(i)) for i in activations), default=SMALLEST_SCALE)
        shared = _affine(low, high, plan.activation_bits, smallest)
    for index, position, slot in group:
        if position >= 0:
            plan.constants[view.index, position, slot] = shared
            continue
        plan.affine[view.index, index] = shared
        if index in pins and pins[index] != shared:
            plan.pinned[producers[index].key] = pins[index]


def _smallest_scale(plan: Plan, producer: Node | None) -> float:
    """Below which the kernel of the operator that makes the tensor would leave 32 bits, and some end the process."""
    if producer is None:
        return SMALLEST_SCALE
    kinds = schema().ActivationFunctionType
    fused = getattr(producer.operator.builtinOptions, "fusedActivationFunction", kinds.NONE)
    bounded = fused in (kinds.RELU6, kinds.RELU_N1_TO_1) or producer.kind == "RELU6"
    terms = []
    if producer.kind in ("ADD", "SUB"):
        # Inputs are planned before what is made of them, except in groups that reach back over a concatenation.
        keys = [(producer.graph, i) for i in producer.inputs]
        terms = [plan.affine[key].scale * SMALLEST_SUM for key in keys if key in plan.affine]
    return max(SMALLEST_BOUNDED_SCALE if bounded else SMALLEST_SCALE, *terms, 0.0)


def _range(view: View, index: int, ranges: Ranges) -> Range:
    if view.is_constant(index):
        values = view.values(index)
        values = values[values > LOWEST]  # -infinity before a pooling becomes the lowest integer of any scale
        return Range(low=float(values.min()), high=float(values.max())) if values.size else Range(low=0.0, high=0.0)
    if (view.index, index) not in ranges:
        raise BadInput(f"tensor {tensor_name(view.tensor(index))}: no range; calibration did not reach it.")
    return ranges[view.index, index]


class _Groups:
    """Disjoint sets of members, in the order of their first mention."""

    def __init__(self) -> None:
        self._parent: dict[Member, Member] = {}

    def add(self, item: Member) -> None:
        self._parent.setdefault(item, item)

    def _root(self, item: Member) -> Member:
        while self._parent[item] != item:
            item = self._parent[item]
        return item

    def join(self, one: Member, other: Member) -> None:
        first, second = self._root(one), self._root(other)
        if first != second:
            self._parent[second] = first

    def all(self) -> list[list[Member]]:
        found: dict[Member, list[Member]] = {}
        for item in self._parent:
            found.setdefault(self._root(item), []).append(item)
        return list(found.values())
