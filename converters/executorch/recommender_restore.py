"""The whole quantized program of a recommender again: `quantized.pt2` with the tables of `model.pte` or `model.ptd`.

A `.pte` cannot be cut; the program can. It is kept with two rows for each table, and this puts the real rows back;
those of a `.ptd` stay mapped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.executorch.program import attribute
from converters.executorch.recommender_readback import file_tables
from converters.executorch.recommender_stream import DATA
from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from runtimes.formats.nibble_ptd import is_packed
from runtimes.formats.ptd_file import NamedWeight, map_named_weights

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
    is_beside = (folder / DATA).is_file() and not is_packed(folder / DATA)
    beside = map_named_weights(folder / DATA) if is_beside else {}
    paths = sorted({str(node.target) for node in graph.graph.nodes if node.op == "get_attr"})
    for path in (path for path in paths if path.startswith("lookups.") and path.endswith(".rows")):
        lookup = attribute(graph, path.removesuffix(".rows"))
        if hasattr(lookup, "shifts"):
            continue  # a shared array is in the program as a whole
        if path in beside:
            for name in ("rows", "scales"):
                key = f"{path.removesuffix('rows')}{name}"
                if key in beside:
                    setattr(lookup, name, _mapped(folder / DATA, beside[key], getattr(lookup, name)))
            continue
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


def _mapped(path: Path, place: NamedWeight, stub: Any) -> Any:
    """A tensor over the bytes of a streamed table, with the columns and type of its stub."""
    torch = require("torch", extra="export-executorch")
    dtype = np.dtype(_numpy_name(stub))
    values = np.memmap(path, dtype, "c", place.start, (place.size // dtype.itemsize,))
    return torch.from_numpy(values.reshape(-1, *stub.shape[1:]))


def _numpy_name(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]
