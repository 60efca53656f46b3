"""Spare XNNPACK's passes the search for what a program does not have: they trace examples of it first, for seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["without_needless_patterns"]


@contextmanager
def without_needless_patterns(program: Any) -> Iterator[None]:
    """Inside, attention and resizing are looked for only where the operators of `program` may make them up.

    Args:
        program: The exported program that is lowered inside; one at a time in a process.
    """
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa

    operators = " ".join(sorted({str(node.target) for node in program.graph.nodes if node.op == "call_function"}))
    has_resizing = "upsample" in operators or "interpolate" in operators
    products = any(word in operators for word in ("bmm", "matmul", "scaled_dot_product", "attention", "einsum"))
    needless: list[tuple[Any, str, type]] = [] if has_resizing else [(bilinear_2d, "get_graphs_dict", dict)]
    needless += [] if products else [(sdpa, "get_graphs", list)]
    had = [(module, name, getattr(module, name)) for module, name, _ in needless]
    for module, name, nothing in needless:
        setattr(module, name, nothing)
    try:
        yield
    finally:
        for module, name, function in had:
            setattr(module, name, function)
