"""Carry a plan out: integer operators, quantized constants, and QUANTIZE/DEQUANTIZE where integers meet floats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from converters.quantize.uniform import Affine, integer_limits, quantize
from converters.tflite.flatbuffer import (
    add_opcode,
    add_tensor,
    schema,
    set_affine,
    set_constant,
    tensor_name,
    tensor_type,
)
from converters.tflite.operators import OPERATORS, TYPE_BLIND, integer_version
from converters.tflite.plan import Plan
from converters.tflite.structure import Node, View
from converters.tflite.weights import WeightStore

__all__ = ["rewrite_graph"]

Form: TypeAlias = Literal["float", "integer"]
DEQUANTIZE_INT8_VERSION = 2


def rewrite_graph(view: View, plan: Plan, store: WeightStore, io: Literal["float", "int8"]) -> None:
    """Turn one subgraph of the float model into its quantized form, in place.

    Args:
        io: Type of the subgraph's float inputs and outputs afterwards.
    """
    _Rewriter(view=view, plan=plan, store=store, io=io).run()


@dataclass(slots=True, kw_only=True)
class _Rewriter:
    """Every float tensor has a home form, its producer's, which keeps index and name; others are made on demand."""

    view: View
    plan: Plan
    store: WeightStore
    io: Literal["float", "int8"]
    homes: dict[int, Form] = field(default_factory=dict)
    others: dict[int, int] = field(default_factory=dict)
    stored: dict[tuple[int, Affine], int] = field(default_factory=dict)
    operators: list[Any] = field(default_factory=list)

    def run(self) -> None:
        graph = self.view.graph
        activations = [i for i in range(len(graph.tensors)) if self.view.is_activation(i)]
        self.homes = dict.fromkeys(activations, "float")
        for node in self.view.nodes:
            if self.plan.is_integer(node):
                self.homes.update({i: "integer" for i in node.outputs if i in self.homes})
        inputs, outputs = [int(i) for i in graph.inputs], [int(i) for i in graph.outputs]
        if self.io == "int8":
            self.homes.update({i: "integer" for i in inputs if (self.view.index, i) in self.plan.affine})
        for index, form in self.homes.items():
            if form == "integer":
                self._make_integer(index, self.plan.affine[self.view.index, index])
        for node in self.view.nodes:
            self._rewrite(node)
        ends = {i: self._output(i) for i in outputs}
        graph.operators = self.operators
        graph.outputs = [ends[i] for i in outputs]
        for definition in self.view.model.signatureDefs or ():
            if int(definition.subgraphIndex) == self.view.index:
                for entry in definition.outputs:
                    entry.tensorIndex = ends.get(int(entry.tensorIndex), entry.tensorIndex)

    @property
    def _kind(self) -> str:
        """Type of integer activations."""
        return f"int{self.plan.activation_bits}"

    def _make_integer(self, index: int, affine: Affine) -> None:
        tensor = self.view.tensor(index)
        tensor.type = tensor_type(self._kind)
        set_affine(tensor, np.array([affine.scale]), np.array([affine.zero_point]))

    def _rewrite(self, node: Node) -> None:
        if node.kind in TYPE_BLIND:
            self.operators.append(node.operator)
            return
        if not self.plan.is_integer(node):
            node.operator.inputs = [self._as(i, "float") if i in self.homes else i for i in node.inputs]
            self.operators.append(node.operator)
            return
        rule = OPERATORS[node.kind]
        bits = self.plan.choices[node.key].bits
        inputs = list(node.inputs)
        grouped = False
        if rule.kind == "weighted":
            weights, bias = self.store.quantize(self.view, node, bits)
            inputs[rule.weight] = self._append(weights)
            if bias is not None:
                inputs[rule.bias :] = [self._append(bias), *inputs[rule.bias + 1 :]]
            channels = self.view.tensor(node.inputs[rule.data]).shape
            grouped = node.kind == "CONV_2D" and int(weights.shape[-1]) != int(channels[-1])
        for slot, index in enumerate(node.inputs):
            if index in self.homes:
                inputs[slot] = self._as(index, "integer")
            elif (*node.key, slot) in self.plan.constants:
                inputs[slot] = self._constant(index, self.plan.constants[(*node.key, slot)])
        operator = node.operator
        operator.inputs = inputs
        old = self.view.model.operatorCodes[operator.opcodeIndex].version
        version = integer_version(
            node.kind, old, weight_bits=bits, activation_bits=self.plan.activation_bits, grouped=grouped
        )
        operator.opcodeIndex = add_opcode(self.view.model, rule.written or node.kind, version)
        self.operators.append(operator)
        if node.key in self.plan.pinned:
            self._requantize(node, self.plan.pinned[node.key])

    def _requantize(self, node: Node, pinned: Affine) -> None:
        """The operator writes a tensor of its own parameters; a QUANTIZE brings it to those its readers share.

        The new tensor takes over the name, because the name of an operator's first output names the layer.
        """
        home = node.outputs[0]
        own = self._new(home, "", self._kind)
        self.view.tensor(home).name = (tensor_name(self.view.tensor(home)) + "_rescaled").encode()
        self._make_integer(own, pinned)
        node.operator.outputs = [own, *node.outputs[1:]]
        self._convert("QUANTIZE", 1, own, home)

    def _as(self, index: int, form: Form) -> int:
        if self.homes[index] == form:
            return index
        if index not in self.others:
            if form == "integer":
                self.others[index] = self._new(index, f"_{self._kind}", self._kind)
                self._make_integer(self.others[index], self.plan.affine[self.view.index, index])
                self._convert("QUANTIZE", 1, index, self.others[index])
            else:
                self.others[index] = self._new(index, "_float", "float32")
                self._convert("DEQUANTIZE", DEQUANTIZE_INT8_VERSION, index, self.others[index])
        return self.others[index]

    def _output(self, index: int) -> int:
        if index not in self.homes or (self.view.index, index) not in self.plan.affine:
            return index
        return self._as(index, "integer" if self.io == "int8" else "float")

    def _convert(self, kind: Literal["QUANTIZE", "DEQUANTIZE"], version: int, source: int, result: int) -> None:
        fb = schema()
        operator = fb.OperatorT()
        operator.opcodeIndex = add_opcode(self.view.model, kind, version)
        operator.inputs, operator.outputs = [source], [result]
        options = "QuantizeOptions" if kind == "QUANTIZE" else "DequantizeOptions"
        operator.builtinOptionsType = getattr(fb.BuiltinOptions, options)
        operator.builtinOptions = getattr(fb, f"{options}T")()
        self.operators.append(operator)

    def _new(self, like: int, suffix: str, kind: str) -> int:
        tensor = self.view.tensor(like)
        shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
        return add_tensor(self.view.graph, tensor_name(tensor) + suffix, shape, kind, like=tensor)

    def _append(self, tensor: Any) -> int:
        self.view.graph.tensors.append(tensor)
        return len(self.view.graph.tensors) - 1

    def _constant(self, index: int, affine: Affine) -> int:
        """An INT8 copy of a float constant; one for each scale under which it is read."""
        if (index, affine) not in self.stored:
            source = self.view.tensor(index)
            low, high = integer_limits(self.plan.activation_bits)
            values = quantize(self.view.values(index), affine.scale, affine.zero_point, low=low, high=high)
            suffix = f"_{self._kind}_{len(self.stored)}" if any(i == index for i, _ in self.stored) else ""
            copy = self._new(index, suffix, self._kind)
            tensor = self.view.tensor(copy)
            tensor.shape, tensor.hasRank = source.shape, source.hasRank
            set_constant(self.view.model, tensor, values, self._kind)
            set_affine(tensor, np.array([affine.scale]), np.array([affine.zero_point]))
            self.stored[index, affine] = copy
        return self.stored[index, affine]
