"""Quantize the tables of a generic program: look-ups become ExecuTorch's quantized kernels, ids stay in range.

embedding_byte ends the process on an id outside its table and embedding_4bit reads other memory (executorch 1.5.1), so
the graph clamps ids first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from converters.executorch.layers import layer_name
from converters.executorch.program import attribute, set_attribute
from edge_deploy.core.require import require

__all__ = ["NEEDS_KERNELS", "NOT_FOR_MCU", "quantize_embeddings"]

NEEDS_KERNELS = (
    "its look-ups are quantized kernels: link quantized_ops_lib, or in Python import executorch.kernels.quantized "
    "before loading"
)
NOT_FOR_MCU = (
    "--for mcu with --to executorch: its microcontroller kernels have no embedding look-up in INT8 or INT4 and "
    "no dynamic linear; take --to tflite --for mcu, or --for phone."
)


def quantize_embeddings(graph: Any, bits: Mapping[str, int], scale: Literal["row", "table"]) -> int:
    """Change the look-ups whose layers stand in `bits` (8 or 4), in place; returns how many.

    Args:
        scale: One scale a row, or one a table; the kernels have the former only, so the latter is repeated.
    """
    import torch

    # Brings the operators and what torch.export needs to know of them.
    require("executorch.kernels.quantized", extra="export-executorch")
    require("executorch.exir.passes._quant_patterns_and_replacements", extra="export-executorch")
    aten = torch.ops.aten
    changed = 0
    for node in list(graph.graph.nodes):
        if node.target is not aten.embedding.default or layer_name(node) not in bits:
            continue
        path = str(node.args[0].target)
        width = bits[layer_name(node)]
        rows, scales, dim = _tables(attribute(graph, path), width, scale)
        with graph.graph.inserting_before(node):
            ids = graph.graph.call_function(aten.clamp.default, (node.args[1], 0, len(scales) - 1))
            if not _is_long(node.args[1]):
                # embedding_byte ends the process on ids of 32 bits.
                ids = graph.graph.call_function(aten._to_copy.default, (ids,), {"dtype": torch.int64})
            table = graph.graph.get_attr(set_attribute(graph, path, "rows", rows))
            steps = graph.graph.get_attr(set_attribute(graph, path, "scales", scales))
            limits = (-128, 127) if width == 8 else (-8, 7)
            operators = torch.ops.quantized_decomposed
            operator = operators.embedding_byte.dtype if width == 8 else operators.embedding_4bit.dtype
            found = graph.graph.call_function(operator, (table, steps, None, *limits, ids), {"dtype": torch.float32})
            found.meta["custom"] = dict(node.meta.get("custom", {}))
            result = found
            if (width == 4 and dim % 2) or dim == 1:
                result = graph.graph.call_function(aten.slice.Tensor, (found, -1, 0, dim))
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)
        changed += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return changed


def _is_long(ids: Any) -> bool:
    """Whether a node's value is known to be of 64 bits."""
    return "int64" in str(getattr(ids.meta.get("val"), "dtype", ""))


def _tables(weight: Any, bits: int, scale: Literal["row", "table"]) -> tuple[Any, Any, int]:
    """Stored rows, one scale for each, and the width of a row as the model sees it."""
    import numpy as np
    import torch

    from converters.executorch.recommender_tables import stack_tables

    values = weight.detach().to(torch.float32).numpy()
    stacked = stack_tables([values], bits=bits, scale=scale)
    scales = stacked.scales if stacked.granularity == "row" else np.repeat(stacked.scales, len(values))
    stored = stacked.stored
    if stored.shape[1] == 1 and bits == 8:
        stored = np.pad(stored, ((0, 0), (0, 1)))  # embedding_byte refuses rows of one value
    return torch.from_numpy(stored), torch.from_numpy(np.ascontiguousarray(scales)), values.shape[1]
