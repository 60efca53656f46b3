"""What the rules of a recipe can know of a recognised recommender's tables and layers."""

from __future__ import annotations

from converters.recommender.model import Recommender
from edge_deploy.core.layer_rule import LayerTraits

__all__ = ["recommender_traits"]


def recommender_traits(model: Recommender, *, table_op: str, dense_op: str) -> tuple[LayerTraits, ...]:
    """Tables, then layers from the dense features to the answer.

    Args:
        table_op: Operator of the format that looks rows up, and `dense_op` the one that a layer becomes.
    """
    tables = tuple(
        LayerTraits(name=table.name, op=table_op, family="embedding", weights=table.rows * table.dim)
        for table in model.tables
    )
    layers = tuple(
        LayerTraits(name=dense.name, op=dense_op, family="linear", weights=dense.in_features * dense.out_features)
        for dense in (*model.bottom, *model.top)
    )
    return (*tables, *layers)
