"""Rows of the embedding table that an id input is looked up in, for programs of any structure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edge_deploy.core.tensor import TensorInfo

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["with_id_bounds"]

# Operators between an input and its look-up that leave every id what it was.
SAME_IDS = frozenset({"_to_copy", "clone", "contiguous", "flatten", "reshape", "squeeze", "to", "unsqueeze", "view"})


def with_id_bounds(program: ExportedProgram, inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
    """Inputs that are looked up as a whole get the rows of the smallest table they meet; what is known stays."""
    rows: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or _name(node) != "embedding":
            continue
        table, ids = node.args[0].meta["val"], node.args[1]
        while ids.op == "call_function" and _name(ids) in SAME_IDS:
            ids = ids.args[0]
        if ids.op == "placeholder":
            rows[ids.name] = min(int(table.shape[0]), rows.get(ids.name, int(table.shape[0])))
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    return tuple(
        dataclasses.replace(info, id_bounds=(rows[name],)) if name in rows and not info.id_bounds else info
        for name, info in zip(names, inputs, strict=True)
    )


def _name(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.split("::")[-1] if schema is not None else ""
