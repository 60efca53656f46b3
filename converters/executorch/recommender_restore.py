"""The whole quantized program of a recommender again: `quantized.pt2` with the tables that stand in `model.pte`.

A `.pte` cannot be cut; the program can. It is kept with two rows for each table, and this puts the real rows back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.executorch.program import attribute
from converters.executorch.recommender_readback import file_tables
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

__all__ = ["restore"]


def restore(folder: Path) -> Any:
    """The quantized graph module of an artifact folder, tables included; takes the inputs in the artifact's order.

    Raises:
        BadInput: The folder has no such files, or the tables of the two do not belong together.
    """
    torch = require("torch", extra="export-executorch")
    require("executorch.kernels.quantized", extra="export-executorch")
    require("executorch.exir.passes._quant_patterns_and_replacements", extra="export-executorch")
    try:
        graph = torch.export.load(folder / "quantized.pt2").module(check_guards=False)
    except Exception as error:  # whatever torch raises on a missing or damaged archive
        raise BadInput(f"{folder / 'quantized.pt2'}: cannot be read ({error}).") from error
    waiting = list(file_tables(folder / "model.pte"))
    paths = sorted({str(node.target) for node in graph.graph.nodes if node.op == "get_attr"})
    for path in (path for path in paths if path.startswith("lookups.") and path.endswith(".rows")):
        lookup = attribute(graph, path.removesuffix(".rows"))
        if hasattr(lookup, "shifts"):
            continue  # a shared array is in the program as a whole
        last = lookup.last + lookup.start if hasattr(lookup, "start") else lookup.last
        rows = int(last.max()) + 1
        if hasattr(lookup, "hot_rows"):
            rows = max(rows - len(lookup.hot_rows), 0)
        shape = (rows, int(lookup.rows.shape[1]))
        fitting = [table for table in waiting if table.fits(shape, lookup.rows.element_size())]
        if len(fitting) != 1:
            raise BadInput(f"{folder}: {len(fitting)} tables of shape {shape} in model.pte for {path}: must be one.")
        waiting.remove(fitting[0])
        lookup.rows = torch.from_numpy(fitting[0].rows(_numpy_name(lookup.rows)).copy())
        if hasattr(lookup, "scales"):
            lookup.scales = torch.from_numpy(fitting[0].scales(_numpy_name(lookup.scales)).copy())
    return graph


def _numpy_name(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]
