"""A whole program in float16: weights, activations, and conversions to and from float32 at its border.

XNNPACK computes float16 on every CPU that converts it (F16C on x86, FP16 on ARM). ExecuTorch's serializer widens the
weights of convolutions to float32 although the runtime takes them in float16; while a half program is lowered here, it
keeps what the program holds.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from converters.executorch.layers import Weighted, layer_name
from converters.executorch.program import LAYER, attribute

__all__ = ["LARGEST_HALF", "beyond_half", "halved", "with_half_weights"]

LARGEST_HALF = 65504.0


def beyond_half(program: Any, layers: tuple[Weighted, ...]) -> dict[str, str]:
    """Why layers cannot be float16, by name: weights or biases that are too large."""
    graph = program.module(check_guards=False)
    names = {layer.name for layer in layers}
    found: dict[str, str] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function" or layer_name(node) not in names:
            continue
        for constant in (arg for arg in node.all_input_nodes if arg.op == "get_attr"):
            values = attribute(graph, str(constant.target))
            largest = float(np.abs(values.detach().numpy()).max(initial=0.0)) if values.is_floating_point() else 0.0
            if largest > LARGEST_HALF:
                found[layer_name(node)] = f"its largest weight {largest:.3g} is beyond float16"
    return found


def halved(graph: Any) -> Any:
    """An unlifted float graph whose constants and operators are float16, between float32 inputs and outputs.

    Args:
        graph: From `program.export(...).module()`; it is consumed, and must be exported again.
    """
    import torch

    graph.half()
    nodes = list(graph.graph.nodes)
    last = nodes[-1]
    for node in nodes:
        if node.op == "placeholder" and node.meta["val"].is_floating_point():
            readers = list(node.users)
            with graph.graph.inserting_after(node):
                half = graph.graph.call_function(torch.ops.aten.to.dtype, (node, torch.float16))
            half.meta["custom"] = {LAYER: f"{node.name}/half"}
            for reader in readers:
                reader.replace_input_with(node, half)
    results = []
    for number, result in enumerate(last.args[0]):
        if not result.meta["val"].is_floating_point():
            results.append(result)
            continue
        with graph.graph.inserting_before(last):
            wide = graph.graph.call_function(torch.ops.aten.to.dtype, (result, torch.float32))
        wide.meta["custom"] = {LAYER: f"output{number}/float"}
        results.append(wide)
    last.args = (type(last.args[0])(results),)
    graph.recompile()
    return graph


@contextmanager
def with_half_weights() -> Iterator[None]:
    """While it lasts, XNNPACK's serializer keeps float16 constants as they are."""
    from executorch.backends.xnnpack.operators.node_visitor import NodeVisitor

    plain = {
        name: method
        for name, method in vars(NodeVisitor).items()
        if inspect.isfunction(method) and "force_fp32" in inspect.signature(method).parameters
    }
    for name, method in plain.items():
        setattr(NodeVisitor, name, _unforced(method))
    try:
        yield
    finally:
        for name, method in plain.items():
            setattr(NodeVisitor, name, method)


def _unforced(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @functools.wraps(method)
    def keeping(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        bound.arguments["force_fp32"] = False
        return method(*bound.args, **bound.kwargs)

    return keeping
