"""Rewrite EmbeddingBag exactly, in a module before export or in an exported program; no target runs the original.

For conversion, `limit_norms` before export and `rewrite_program` after it are the better way: the program also shows
`functional.embedding_bag`, and constant offsets, whose bags become plain look-ups where each holds one id. A module
does not show them, and `rewrite`, for modules that must stay modules, hides them from whoever exports its result.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

from converters.passes.pooling import pool_flat, pool_rows
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.require import require

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

__all__ = ["limit_norms", "rewrite", "rewrite_program"]


def rewrite(module: nn.Module) -> nn.Module:
    """A copy of `module`, sharing its parameters, in which every nn.EmbeddingBag is plain look-ups and products.

    Tables with a `max_norm` are limited as by `limit_norms`.

    Raises:
        Unsupported: An EmbeddingBag takes the maximum, or is a subclass with a forward of its own.
    """
    require("torch", extra="run-executorch")
    from torch import nn

    refusals = [
        Refusal(layer=name or "(root)", op="EmbeddingBag", reason=reason, remedy=remedy)
        for name, child in module.named_modules()
        if isinstance(child, nn.EmbeddingBag)
        for reason, remedy in _objections(child)
    ]
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    copied = limit_norms(module)
    if isinstance(copied, nn.EmbeddingBag):
        return _pooled(copied)
    made: dict[int, nn.Module] = {}
    for parent in list(copied.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, nn.EmbeddingBag):
                parent._modules[name] = made.setdefault(id(child), _pooled(child))
    return copied


def limit_norms(module: nn.Module) -> nn.Module:
    """A copy of `module`, sharing its parameters, in which tables with a `max_norm` are limited once and for all.

    Otherwise every look-up changes the table, which no exported program may.
    """
    require("torch", extra="run-executorch")
    from torch import nn

    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, shared)
    limited: dict[tuple[int, float, float], nn.Parameter] = {}
    for child in copied.modules():
        if isinstance(child, nn.Embedding | nn.EmbeddingBag) and child.max_norm is not None:
            child.weight = _limited(child, limited)
            child.max_norm = None
    return copied


def _objections(bag: nn.EmbeddingBag) -> list[tuple[str, str]]:
    from torch import nn

    found = []
    if bag.mode not in ("sum", "mean"):
        found.append((f"takes the {bag.mode} of a bag, which has no exact form", "use sum or mean"))
    if type(bag).forward is not nn.EmbeddingBag.forward:
        found.append((f"{type(bag).__name__} has a forward of its own", "export it and use rewrite_program"))
    return found


def _limited(table: Any, done: dict[tuple[int, float, float], nn.Parameter]) -> nn.Parameter:
    """The table with rows limited to its max_norm, as the first look-up of each row would leave them."""
    import torch

    key = (id(table.weight), float(table.max_norm), float(table.norm_type))
    if key not in done:
        with torch.no_grad():
            rows = torch.renorm(table.weight.detach(), table.norm_type, 0, table.max_norm)
        done[key] = torch.nn.Parameter(rows, requires_grad=table.weight.requires_grad)
    return done[key]


def _pooled(bag: nn.EmbeddingBag) -> nn.Module:
    pooled: nn.Module = _pooled_class()(bag.weight, bag.mode, bag.padding_idx, bag.include_last_offset)
    return pooled.train(bag.training)


@functools.cache
def _pooled_class() -> type[nn.Module]:
    from torch import nn

    class PooledEmbedding(nn.Module):  # type: ignore[misc]  # torch ships no types here
        """Takes what nn.EmbeddingBag takes and gives what it gives."""

        def __init__(self, weight: Any, pooling: Any, padding_index: int | None, includes_last: bool) -> None:
            super().__init__()
            self.weight = weight
            self.pooling = pooling
            self.padding_index = padding_index
            self.includes_last = includes_last

        def forward(
            self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
        ) -> Tensor:
            """Vectors [bags, dim] of ids [bags, length], or [n] with offsets; names are nn.EmbeddingBag's."""
            if per_sample_weights is not None and self.pooling != "sum":
                raise BadInput(f"EmbeddingBag: per_sample_weights with {self.pooling}: only sum takes weights.")
            if input.dim() == 2:
                if offsets is not None:
                    raise BadInput("EmbeddingBag: ids [bags, length] with offsets: give the ids flat, or no offsets.")
                return pool_rows(
                    self.weight,
                    input,
                    pooling=self.pooling,
                    padding_index=self.padding_index,
                    sample_weights=per_sample_weights,
                )
            if input.dim() != 1 or offsets is None:
                raise BadInput(
                    f"EmbeddingBag: ids of shape {tuple(input.shape)}: must be [bags, length], or [n] with offsets."
                )
            return pool_flat(
                self.weight,
                input,
                offsets,
                pooling=self.pooling,
                includes_last=self.includes_last,
                padding_index=self.padding_index,
                sample_weights=per_sample_weights,
            )

    return PooledEmbedding


def rewrite_program(program: ExportedProgram) -> ExportedProgram:
    """Replace every embedding bag in the graph of `program`, in place; a program without any is left as it is.

    Raises:
        Unsupported: Bags that take the maximum, whose other results are used, or whose tables have a max_norm.
    """
    require("torch", extra="run-executorch")
    from converters.passes.embedding_bag_graph import replace_bags

    return replace_bags(program)
