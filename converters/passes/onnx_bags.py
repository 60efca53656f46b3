"""EmbeddingBags that an exporter unrolled into ONNX loops become look-ups and sums again, exactly.

torch.onnx writes a Loop over bags: the body slices the ids between two offsets, gathers their rows, perhaps scales
them, and reduces. Neither onnx2tf nor any mobile runtime takes such a loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_deploy.core.errors import Refusal, Unsupported
from edge_deploy.core.require import require

__all__ = ["rewrite_bags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bags:
    """One loop understood: names of tensors outside it; `scales` are per-sample weights where there are any."""

    table: str
    ids: str
    starts: str
    ends: str
    scales: str | None
    is_mean: bool
    output: str


def rewrite_bags(model: Any, *, where: str) -> int:
    """Replace every loop over bags, in place; returns how many there were.

    Args:
        model: An `onnx.ModelProto` of operator set 13 or later whose constants were folded, so that constant offsets
            are initializers.

    Raises:
        Unsupported: A loop that is no bag of embeddings, by name.
    """
    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    nodes, refusals, count = [], [], 0
    for node in graph.node:
        if node.op_type != "Loop":
            nodes.append(node)
            continue
        bags = _understand(node)
        if bags is None:
            refusals.append(
                Refusal(
                    layer=node.name or node.output[0],
                    op="Loop",
                    reason="a loop that is no bag of embeddings",
                    remedy="export the model from PyTorch by --source package.module:factory",
                )
            )
            continue
        nodes += list(_spelled_out(bags, f"bag_{count}", constants, graph))
        count += 1
    if refusals:
        raise Unsupported(f"{where}: only plain feed-forward graphs are converted.", refusals=tuple(refusals))
    if count:
        del graph.node[:]
        graph.node.extend(nodes)
    return count


def _understand(loop: Any) -> _Bags | None:
    """The bags behind a loop, None where its body is another one."""
    body = next(item.g for item in loop.attribute if item.name == "body")
    makers = {name: node for node in body.node for name in node.output}
    inner = set(makers) | {item.name for item in body.input}
    counter = body.input[0].name
    reduce = makers.get(body.output[-1].name)
    if len(loop.output) != 1 or reduce is None or reduce.op_type not in ("ReduceSum", "ReduceMean"):
        return None
    rows, scales = makers.get(reduce.input[0]), None
    if rows is not None and rows.op_type == "Mul":
        sides = [makers.get(name) for name in rows.input]
        rows = next((side for side in sides if side is not None and side.op_type == "Gather"), None)
        other = next((side for side in sides if side is not None and side is not rows), None)
        while other is not None and other.op_type == "Unsqueeze":
            other = makers.get(other.input[0])
        if other is None or other.op_type != "Slice" or other.input[0] in inner:
            return None
        scales = other.input[0]
    if rows is None or rows.op_type != "Gather" or rows.input[0] in inner:
        return None
    piece = makers.get(rows.input[1])
    if piece is None or piece.op_type != "Slice" or piece.input[0] in inner:
        return None
    borders = []
    for name in piece.input[1:3]:
        node = makers.get(name)
        while node is not None and node.op_type in ("Unsqueeze", "Reshape"):
            node = makers.get(node.input[0])
        if node is None or node.op_type != "Gather" or node.input[0] in inner or node.input[1] != counter:
            return None
        borders.append(node.input[0])
    return _Bags(
        table=rows.input[0],
        ids=piece.input[0],
        starts=borders[0],
        ends=borders[1],
        scales=scales,
        is_mean=reduce.op_type == "ReduceMean",
        output=loop.output[0],
    )


def _spelled_out(bags: _Bags, name: str, constants: dict[str, Any], graph: Any) -> Iterator[Any]:
    """Nodes that compute the bags: rows of equal bags are summed by axis, others by a product with a mask."""
    onnx = require("onnx", extra="from-onnx")
    numpy_helper = require("onnx.numpy_helper", extra="from-onnx")
    node = onnx.helper.make_node

    def constant(label: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{name}_{label}"))
        return f"{name}_{label}"

    def known(tensor: str) -> np.ndarray | None:
        return numpy_helper.to_array(constants[tensor]) if tensor in constants else None

    yield node("Gather", [bags.table, bags.ids], [f"{name}_rows"], name=f"{name}_rows", axis=0)
    rows = f"{name}_rows"
    if bags.scales is not None:
        yield node("Unsqueeze", [bags.scales, constant("last", np.array([-1]))], [f"{name}_scales"])
        yield node("Mul", [rows, f"{name}_scales"], [f"{name}_scaled"])
        rows = f"{name}_scaled"
    even = _even_bags(known(bags.starts), known(bags.ends))
    if even is not None:
        count, length = even
        shape = constant("shape", np.array([count, length, -1]))
        yield node("Reshape", [rows, shape], [f"{name}_bags"])
        axes = constant("axis", np.array([1]))
        yield node("ReduceSum", [f"{name}_bags", axes], [f"{name}_sum" if bags.is_mean else bags.output], keepdims=0)
        if bags.is_mean:
            yield node("Div", [f"{name}_sum", constant("length", np.array(length, np.float32))], [bags.output])
        return
    yield node("Shape", [bags.ids], [f"{name}_count"])
    yield node("Squeeze", [f"{name}_count"], [f"{name}_limit"])
    yield node(
        "Range", [constant("zero", np.array(0)), f"{name}_limit", constant("one", np.array(1))], [f"{name}_places"]
    )
    column = constant("column", np.array([1]))
    # The starts may hold one more, where the last bag ends.
    yield node("Shape", [bags.ends], [f"{name}_bags"])
    yield node("Slice", [bags.starts, constant("first", np.array([0])), f"{name}_bags"], [f"{name}_starts"])
    for label, source in (("from", f"{name}_starts"), ("to", bags.ends)):
        yield node("Unsqueeze", [source, column], [f"{name}_{label}"])
    yield node("Less", [f"{name}_places", f"{name}_from"], [f"{name}_before"])
    yield node("Not", [f"{name}_before"], [f"{name}_begun"])
    yield node("Less", [f"{name}_places", f"{name}_to"], [f"{name}_open"])
    yield node("And", [f"{name}_begun", f"{name}_open"], [f"{name}_inside"])
    yield node("Cast", [f"{name}_inside"], [f"{name}_mask"], to=onnx.TensorProto.FLOAT)
    yield node("MatMul", [f"{name}_mask", rows], [f"{name}_sum" if bags.is_mean else bags.output])
    if bags.is_mean:
        yield node("ReduceSum", [f"{name}_mask", column], [f"{name}_held"], keepdims=1)
        yield node("Max", [f"{name}_held", constant("least", np.array(1, np.float32))], [f"{name}_divisor"])
        yield node("Div", [f"{name}_sum", f"{name}_divisor"], [bags.output])


def _even_bags(starts: np.ndarray | None, ends: np.ndarray | None) -> tuple[int, int] | None:
    """Number and length of the bags, where they follow each other without gaps and are equally long."""
    if starts is None or ends is None or len(ends) < 1:
        return None
    starts = starts[: len(ends)]  # it may hold one more, where the last bag ends
    length = int(ends[0] - starts[0])
    even = np.arange(len(ends)) * length
    is_even = length > 0 and np.array_equal(starts, even) and np.array_equal(ends, even + length)
    return (len(ends), length) if is_even else None
