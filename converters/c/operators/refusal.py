"""An operator that has no form in C, by the name of its layer."""

from __future__ import annotations

from converters.c.graph import Node
from edge_deploy.core.errors import Refusal, Unsupported

__all__ = ["refuse"]


def refuse(node: Node, reason: str, remedy: str = "") -> Unsupported:
    """The error to raise: what is in the way, and what would help."""
    return Unsupported(refusals=(Refusal(layer=node.layer, op=node.op, reason=reason, remedy=remedy),))
