"""INT4 training of recommenders after DQRM (Zhou et al., arXiv:2410.20046): fake-quantized rows and output channels.

Rows are quantized after they were looked up and before they are pooled, so that a step never copies a table and what
is trained is what a file holds. A table's single scale is looked for every `refresh_steps` steps and whenever
evaluation begins; a row's own scale comes from the row at each look-up, which costs nothing more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from converters.compress.fake_quantize import (
    CHUNK_ROWS,
    channel_scales,
    on_grid,
    row_scales,
    searched_scale,
    straight_through,
    table_scale,
)
from converters.compress.replace import embeddings, linears, replace_modules
from edge_deploy.core.errors import BadInput, Refusal, Unsupported
from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["BITS_NAME", "DqrmPlan", "SCALE_NAME", "finish", "prepare"]

SCALE_NAME = "weight_scale"
BITS_NAME = "weight_bits"


@dataclass(frozen=True, slots=True, kw_only=True)
class DqrmPlan:
    """What is fake-quantized.

    Attributes:
        table_bits: Of embeddings: 4, 8, or 32 to leave them alone.
        table_scale: One scale for a table (the paper's, 8 times smaller than float32), or one for each row.
        mlp_bits: Of fully connected layers, a scale for each output channel: 4, 8, or 32 to leave them alone.
        refresh_steps: Steps between two looks for a table's scale.
        table_range: Where a table's single scale comes from: "max" of the table (the paper's), or "mse", the least
            squared error of the rows that the step looked up, which clips rare large values.
        start_step: Train in float for so many steps; evaluation sees the grids from the beginning.
    """

    table_bits: int = 4
    table_scale: Literal["row", "table"] = "table"
    mlp_bits: int = 4
    refresh_steps: int = 200
    start_step: int = 0
    table_range: Literal["max", "mse"] = "max"

    def __post_init__(self) -> None:
        problems = [
            f"quantized training: {name} = {value}: must be 4, 8 or 32."
            for name, value in (("table_bits", self.table_bits), ("mlp_bits", self.mlp_bits))
            if value not in (4, 8, 32)
        ]
        if self.table_scale not in ("row", "table"):
            problems.append(f"quantized training: table_scale = {self.table_scale}: must be row or table.")
        if self.table_range not in ("max", "mse"):
            problems.append(f"quantized training: table_range = {self.table_range}: must be max or mse.")
        if self.refresh_steps < 1:
            problems.append(f"quantized training: refresh_steps = {self.refresh_steps}: must be at least 1.")
        if self.start_step < 0:
            problems.append(f"quantized training: start_step = {self.start_step}: must not be negative.")
        if problems:
            raise BadInput(*problems)


def prepare(model: torch.nn.Module, plan: DqrmPlan) -> None:
    """Replace embeddings and fully connected layers in place by fake-quantized ones; parameters and names stay.

    Raises:
        Unsupported: An embedding pools by maximum or renormalizes its rows.
    """
    refusals = []
    tables = embeddings(model) if plan.table_bits != 32 else {}
    for name, table in tables.items():
        if getattr(table, "mode", "sum") == "max" or table.max_norm is not None or table.scale_grad_by_freq:
            reason = "its rows are pooled by maximum, renormalized, or their gradients scaled by frequency"
            refusals.append(Refusal(layer=name, op=type(table).__name__, reason=reason, remedy="take sums or means"))
    if refusals:
        raise Unsupported(refusals=tuple(refusals))
    kind, dense = _table_class(), _linear_class()
    replace_modules(model, tables, lambda _, table: kind(table, plan))
    if plan.mlp_bits != 32:
        replace_modules(model, linears(model), lambda _, layer: dense(layer, plan))


def finish(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Put plain modules back whose weights are the trained values on their grids.

    Returns:
        By the name of each weight's module: `NAME.weight_scale` float32 ([1], [rows] or [out]) and `NAME.weight_bits`;
        they belong into the checkpoint beside the state dict, from where a conversion takes them as they are.
    """
    found = {
        name: module for name, module in model.named_modules() if isinstance(module, (_table_class(), _linear_class()))
    }
    scales = {}
    torch = require("torch", extra="run-executorch")
    with torch.no_grad():
        for name, module in found.items():
            scales[f"{name}.{SCALE_NAME}"] = module.settle()
            scales[f"{name}.{BITS_NAME}"] = torch.tensor(module.bits, dtype=torch.int64)
        replace_modules(model, found, lambda _, module: module.plain())
    return scales


@functools.cache
def _table_class() -> Any:
    torch = require("torch", extra="run-executorch")
    functional = torch.nn.functional

    class FakeQuantizedTable(torch.nn.Module):  # type: ignore[misc,name-defined]
        """An embedding or a bag of embeddings whose rows are quantized before they are pooled."""

        is_table = True

        def __init__(self, table: Any, plan: DqrmPlan) -> None:
            super().__init__()
            self.weight, self.bits, self.by_row = table.weight, plan.table_bits, plan.table_scale == "row"
            self.padding_idx = table.padding_idx
            self.mode, self.is_searched = getattr(table, "mode", None), plan.table_range == "mse"
            self.refresh_steps, self.start_step = plan.refresh_steps, plan.start_step
            self.template = (type(table), table.num_embeddings, table.embedding_dim)
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # so that a stopped run goes on alike
            scale = torch.ones(1) if self.by_row else table_scale(table.weight, self.bits)
            self.register_buffer(SCALE_NAME, scale)

        def refresh(self, looked_up: Any = None) -> None:
            """Take the table's scale from its rows of now."""
            if self.by_row or (self.is_searched and looked_up is None):
                return
            self.weight_scale.copy_(
                searched_scale(looked_up, self.bits) if self.is_searched else table_scale(self.weight, self.bits)
            )

        def train(self, mode: bool = True) -> Any:
            # What is evaluated must be what `finish` leaves: the scale of the weights of that moment.
            if not mode and self.training:
                self.refresh()
            return super().train(mode)

        def forward(self, ids: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
            rows = functional.embedding(ids, self.weight, self.padding_idx, sparse=True)
            is_float = self._counts_as_float(rows)
            if not is_float:
                scale = row_scales(rows, self.bits) if self.by_row else self.weight_scale
                rows = straight_through(rows, scale, self.bits)
            if self.mode is None or (ids.dim() == 1 and offsets is None):
                return rows
            if offsets is None and ids.shape[1] == 1 and self.padding_idx is None and per_sample_weights is None:
                return rows[:, 0]
            return self._pooled(rows, ids, offsets, per_sample_weights)

        def _counts_as_float(self, rows: Any) -> bool:
            """Count a training step, look for the scale where it is time to; whether this step is one in float."""
            if not self.training:
                return False
            done = int(self.steps)
            self.steps += 1
            if done == self.start_step or done % self.refresh_steps == 0:
                self.refresh(rows)
            return done < self.start_step

        def _pooled(self, rows: Any, ids: Any, offsets: Any, weights: Any) -> Any:
            counted = torch.ones_like(ids, dtype=rows.dtype)
            if self.padding_idx is not None:
                counted = (ids != self.padding_idx).to(rows.dtype)
            factors = counted if weights is None else counted * weights
            weighted = rows * factors.unsqueeze(-1)
            if offsets is None:
                total, count = weighted.sum(dim=1), counted.sum(dim=1)
            else:
                places = torch.arange(len(ids), device=ids.device)
                bag = torch.bucketize(places, offsets, right=True) - 1
                total = rows.new_zeros((len(offsets), rows.shape[1])).index_add(0, bag, weighted)
                count = rows.new_zeros(len(offsets)).index_add(0, bag, counted)
            return total / count.clamp(min=1).unsqueeze(-1) if self.mode == "mean" else total

        def settle(self) -> Any:
            """Move all rows onto their grid; their scales [1] or [rows]."""
            found = []
            for part in self.weight.data.split(CHUNK_ROWS):
                scale = row_scales(part, self.bits) if self.by_row else self.weight_scale
                part.copy_(on_grid(part, scale, self.bits))
                found.append(scale.reshape(-1))
            return torch.cat(found) if self.by_row else self.weight_scale.clone()

        def plain(self) -> Any:
            """The embedding as it was, with the weights of now."""
            kind, rows, dim = self.template
            options = {"padding_idx": self.padding_idx, "_weight": self.weight.data}
            made = kind(rows, dim, **options) if self.mode is None else kind(rows, dim, mode=self.mode, **options)
            made.train(self.training)
            return made

    return FakeQuantizedTable


@functools.cache
def _linear_class() -> Any:
    torch = require("torch", extra="run-executorch")

    class FakeQuantizedLinear(torch.nn.Module):  # type: ignore[misc,name-defined]
        """A fully connected layer with a scale for each output channel; its bias stays float, as in the files."""

        def __init__(self, layer: Any, plan: DqrmPlan) -> None:
            super().__init__()
            self.weight, self.bias, self.bits = layer.weight, layer.bias, plan.mlp_bits
            self.start_step = plan.start_step
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

        def forward(self, values: Any) -> Any:
            if self.training and self.start_step:
                self.steps += 1
                if int(self.steps) <= self.start_step:
                    return torch.nn.functional.linear(values, self.weight, self.bias)
            weight = straight_through(self.weight, channel_scales(self.weight, self.bits), self.bits)
            return torch.nn.functional.linear(values, weight, self.bias)

        def settle(self) -> Any:
            scale = channel_scales(self.weight, self.bits)
            self.weight.data.copy_(on_grid(self.weight.data, scale, self.bits))
            return scale.reshape(-1)

        def plain(self) -> Any:
            out, inputs = self.weight.shape
            made = torch.nn.Linear(inputs, out, bias=self.bias is not None)
            made.weight = torch.nn.Parameter(self.weight.data)
            if self.bias is not None:
                made.bias = torch.nn.Parameter(self.bias.data)
            return made.train(self.training)

    return FakeQuantizedLinear
