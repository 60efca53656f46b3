"""GELUs that an exporter spelled out with the error function become one operator again, which TFLite has.

torch.onnx writes x * (1 + erf(x / sqrt(2))) / 2 below operator set 20; TFLite knows GELU, and no error function.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.require import require

__all__ = ["rewrite_gelus"]

FIRST_WITH_GELU = 20


def rewrite_gelus(model: Any, *, where: str) -> Any:
    """The model with one Gelu for each such product, of operator set 20 if there was one.

    Raises:
        Unsupported: An error function that is no part of a GELU, by name.
    """
    if not any(node.op_type == "Erf" for node in model.graph.node):
        return model
    onnx = require("onnx", extra="from-onnx")
    old = next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if old < FIRST_WITH_GELU:
        model = require("onnx.version_converter", extra="from-onnx").convert_version(model, FIRST_WITH_GELU)
    graph = _Graph(model.graph)
    made: dict[str, Any] = {}
    gone: set[int] = set()
    refusals = []
    for node in model.graph.node:
        if node.op_type != "Erf":
            continue
        found = graph.gelu(node)
        if found is None:
            refusals.append(Refusal(layer=node.name or node.output[0], op="Erf", reason="TFLite has no error function"))
            continue
        value, parts = found
        output = parts[-1].output[0]
        made[output] = onnx.helper.make_node("Gelu", [value], [output], name=node.name or f"gelu_{len(made)}")
        gone |= {id(part) for part in parts}
    if refusals:
        raise Unsupported(f"{where}: cannot become TFLite.", refusals=tuple(refusals))
    kept = [
        made.get(node.output[0], node) if node.output and node.output[0] in made else node
        for node in model.graph.node
        if id(node) not in gone or node.output[0] in made
    ]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


class _Graph:
    """Who makes and who reads each value of an ONNX graph."""

    def __init__(self, graph: Any) -> None:
        helper = require("onnx.numpy_helper", extra="from-onnx")
        self._constants = {item.name: helper.to_array(item) for item in graph.initializer}
        self._makers: dict[str, Any] = {}
        self._readers: dict[str, list[Any]] = {}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = helper.to_array(node.attribute[0].t)
            for name in node.output:
                self._makers[name] = node
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {entry.name for entry in graph.output}

    def gelu(self, erf: Any) -> tuple[str, list[Any]] | None:
        """The value that a GELU around `erf` is taken of, and its nodes, the last one making the result."""
        scaled = self._makers.get(erf.input[0])
        value = None if scaled is None else self._scaled(scaled, 1 / math.sqrt(2))
        plus = self._only_reader(erf.output[0])
        if value is None or plus is None or plus.op_type != "Add" or self._with_constant(plus, 1.0) != erf.output[0]:
            return None
        last = self._only_reader(plus.output[0])
        other = self._other(last, plus.output[0])
        if last is None or other is None:
            return None
        parts = [erf, plus, last]
        half = self._makers.get(other)
        if half is not None and self._scaled(half, 0.5) == value:
            return value, parts  # (x / 2) * (1 + erf), of which the half may have other readers
        end = self._only_reader(last.output[0])
        if end is None:
            return None
        if other == value and self._scaled(end, 0.5) == last.output[0]:
            return value, [*parts, end]
        if self._is_number(other, 0.5) and self._other(end, last.output[0]) == value:
            return value, [*parts, end]
        return None

    def _only_reader(self, name: str) -> Any:
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def _other(self, product: Any, one: str) -> str | None:
        if product is None or product.op_type != "Mul":
            return None
        others = [name for name in product.input if name != one]
        return others[0] if len(others) == 1 else None

    def _scaled(self, node: Any, factor: float) -> str | None:
        """What a node multiplies by `factor`, or divides by its reciprocal."""
        if node.op_type == "Mul":
            return self._with_constant(node, factor)
        if node.op_type == "Div" and self._is_number(node.input[1], 1 / factor):
            return str(node.input[0])
        return None

    def _with_constant(self, node: Any, number: float) -> str | None:
        """The other operand of a node that has `number` as one."""
        others = [name for name in node.input if not self._is_number(name, number)]
        return str(others[0]) if len(others) == 1 and len(node.input) == 2 else None

    def _is_number(self, name: str, number: float) -> bool:
        found = self._constants.get(name)
        return found is not None and found.size == 1 and bool(np.isclose(float(found.reshape(())), number, rtol=1e-4))
