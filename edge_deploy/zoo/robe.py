"""Embeddings that share one array (ROBE) as torch modules, and the operator that keeps them one node in an export.

A table of `shared_tables` is called like an Embedding ([B] or, without pooling, any shape) or, with a mode, like an
EmbeddingBag of [B, L] ids. While a model is trained it computes with plain operators; in an exported program it is one
node, `edge_deploy::robe_rows`, whose arguments are the frozen hash.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from edge_deploy.core.require import require
from edge_deploy.core.robe import RobeHash, RobeTable

if TYPE_CHECKING:
    import torch

__all__ = ["OPERATOR", "register_operator", "shared_tables"]

OPERATOR = "edge_deploy::robe_rows"
SCHEMA = "(Tensor array, Tensor ids, int[] multipliers, int rows, int offset, int block, int dim, int prime) -> Tensor"
LARGEST_DENSE = 1 << 22  # elements up to which a dense gradient is cheaper than sorting a sparse one
LARGEST_START = 0.05


def shared_tables(
    rows: Sequence[int], made: RobeHash, *, mode: Literal["sum", "mean"] | None = None, seed: int = 0
) -> torch.nn.ModuleList:
    """A module for each table, all over one parameter [size, 1], uniform within +-sqrt(dim / size) at first.

    Args:
        rows: Of each table.
        mode: None looks single ids up; "sum" and "mean" pool ids [B, L].
    """
    torch = require("torch", extra="run-executorch")
    limit = min(LARGEST_START, (made.dim / made.size) ** 0.5)
    values = torch.empty((made.size, 1)).uniform_(-limit, limit, generator=torch.Generator().manual_seed(seed))
    array = torch.nn.Parameter(values)
    kind = _table_class()
    starts = [sum(rows[:place]) for place in range(len(rows))]
    tables = [RobeTable(hash=made, rows=count, offset=start) for count, start in zip(rows, starts, strict=True)]
    return torch.nn.ModuleList(kind(array, table, mode) for table in tables)


@functools.cache
def _table_class() -> Any:
    torch = require("torch", extra="run-executorch")
    register_operator()

    class SharedTable(torch.nn.Module):  # type: ignore[misc,name-defined]
        """One table over the shared array."""

        is_table = True

        def __init__(self, array: Any, table: RobeTable, mode: str | None) -> None:
            super().__init__()
            self.array, self.table, self.mode = array, table, mode
            self.num_embeddings, self.embedding_dim = table.rows, table.hash.dim

        def forward(self, ids: Any) -> Any:
            made = self.table.hash
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                found = _rows(torch, self.array, ids, self.table, sparse=made.size > LARGEST_DENSE)
            else:
                settings = (self.table.rows, self.table.offset, made.block, made.dim, made.prime)
                found = torch.ops.edge_deploy.robe_rows(self.array, ids, list(made.multipliers), *settings)
            if self.mode is None or ids.dim() == 1:
                return found
            return found.sum(dim=1) if self.mode == "sum" else found.mean(dim=1)

    return SharedTable


def _rows(torch: Any, array: Any, ids: Any, table: RobeTable, *, sparse: bool = False) -> Any:
    made = table.hash
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < table.rows:
        raise IndexError(f"ids from {int(ids.min())} to {int(ids.max())}: must lie in [0, {table.rows}).")
    mixed = (ids.to(torch.int64) + table.offset).unsqueeze(-1) * made.multipliers[2] + torch.tensor(made.shifts)
    starts = mixed % made.prime % made.places
    slots = (starts.unsqueeze(-1) + torch.arange(made.block)).flatten(-2)[..., : made.dim]
    return torch.nn.functional.embedding(slots, array, sparse=sparse).squeeze(-1)


@functools.cache
def register_operator() -> None:
    """Make the operator known to torch in this process: before a program that has it is loaded or exported."""
    torch = require("torch", extra="run-executorch")

    def robe_rows(
        array: Any, ids: Any, multipliers: Sequence[int], rows: int, offset: int, block: int, dim: int, prime: int
    ) -> Any:
        first, second, third = multipliers
        made = RobeHash(size=len(array), block=block, dim=dim, multipliers=(first, second, third), prime=prime)
        return _rows(torch, array, ids, RobeTable(hash=made, rows=rows, offset=offset)).clone()

    def shape(
        array: Any, ids: Any, multipliers: Sequence[int], rows: int, offset: int, block: int, dim: int, prime: int
    ) -> Any:
        return array.new_empty((*ids.shape, dim))

    made = torch.library.custom_op(OPERATOR, robe_rows, mutates_args=(), schema=SCHEMA)
    made.register_fake(shape)
