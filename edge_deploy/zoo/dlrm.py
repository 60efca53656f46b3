"""A deep learning recommendation model in PyTorch (Naumov et al., arXiv:1906.00091), described by a small value.

Importing this module does not import torch. `configured` is a factory for `--source edge_deploy.zoo.dlrm:configured`;
it reads the description from the JSON file that the environment variable EDGE_DEPLOY_DLRM names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.core.robe import RobeHash
from edge_deploy.core.serde import read_json
from edge_deploy.zoo.robe import shared_tables

if TYPE_CHECKING:
    import torch

__all__ = ["CONFIG_VARIABLE", "DlrmConfig", "build", "configured", "read_config"]

CONFIG_VARIABLE = "EDGE_DEPLOY_DLRM"


@dataclass(frozen=True, slots=True, kw_only=True)
class DlrmConfig:
    """The shape of a DLRM.

    Attributes:
        dense_features: Columns of the dense input.
        table_rows: Rows of each embedding table, one table for each column of the id input.
        dim: Width of all embeddings.
        bottom: Widths of the hidden layers of the bottom MLP; with "dot" a last layer of width `dim` follows.
        top: Widths of the hidden layers of the top MLP; a last layer of width 1 follows.
        interaction: "dot" products of all pairs of vectors beside the bottom MLP's output, or "concat" of everything.
        bags: Tables are EmbeddingBags instead of Embeddings.
        lookups: Ids that each bag pools; the id input then has so many neighbouring columns for each table.
        pooling: What bags do with them.
        robe: All tables share one array and are read at the places of this hash.
        probability: The output is a probability (sigmoid) instead of a logit.
        seed: Of the initial weights.
    """

    dense_features: int
    table_rows: tuple[int, ...]
    dim: int = 16
    bottom: tuple[int, ...] = (64,)
    top: tuple[int, ...] = (64, 32)
    interaction: Literal["dot", "concat"] = "dot"
    bags: bool = False
    probability: bool = True
    seed: int = 0
    lookups: int = 1
    pooling: Literal["sum", "mean"] = "sum"
    robe: RobeHash | None = None

    def __post_init__(self) -> None:
        sizes = (self.dense_features, self.dim, *self.table_rows, *self.bottom, *self.top)
        if not self.table_rows or min(sizes) < 1:
            raise BadInput("DLRM: needs at least one table and one dense feature, and all sizes must be at least 1.")
        if self.lookups < 1 or (self.lookups > 1 and not self.bags):
            raise BadInput(f"DLRM: lookups = {self.lookups}: must be at least 1, and 1 without bags.")
        if self.robe is not None and self.robe.dim != self.dim:
            raise BadInput(f"DLRM: the hash is for rows of {self.robe.dim}, the tables' have {self.dim}.")


def read_config(path: Path) -> DlrmConfig:
    """The description in a JSON file written by `edge_deploy.core.serde.write_json`.

    Raises:
        BadInput: The file is missing or not such a description.
    """
    return read_json(DlrmConfig, path)


def configured() -> torch.nn.Module:
    """An untrained DLRM as the file named by EDGE_DEPLOY_DLRM describes it; weights come from a checkpoint.

    Raises:
        BadInput: The variable is not set, or names no description.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        raise BadInput(f"environment variable {CONFIG_VARIABLE}: not set; must name the config.json of a DLRM.")
    return build(read_config(Path(path)))


def build(config: DlrmConfig) -> torch.nn.Module:
    """A module with forward(dense [B, features] float32, sparse [B, tables * lookups] int64) -> [B, 1] float32.

    Tables start uniform in +-sqrt(1 / rows) as in the authors' code, but not wider than 0.05, so that small tables
    do not drown the others.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    torch = require("torch", extra="run-executorch")
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.robe is not None:
            mode = config.pooling if config.bags else None
            tables = shared_tables(config.table_rows, config.robe, mode=mode, seed=config.seed)
        else:
            tables = _tables(nn, config)
        bottom_widths = [config.dense_features, *config.bottom]
        if config.interaction == "dot":
            bottom_widths.append(config.dim)
        vectors = len(config.table_rows) + 1
        if config.interaction == "dot":
            met = config.dim + vectors * (vectors - 1) // 2
        else:
            met = bottom_widths[-1] + len(config.table_rows) * config.dim
        module = _module_class(torch)(
            tables,
            _mlp(nn, bottom_widths, last_relu=True),
            _mlp(nn, [met, *config.top, 1], last_relu=False),
            config,
        )
    return module


def _tables(nn: Any, config: DlrmConfig) -> Any:
    kind = {"mode": config.pooling} if config.bags else {}
    tables = nn.ModuleList(
        (nn.EmbeddingBag if config.bags else nn.Embedding)(rows, config.dim, **kind) for rows in config.table_rows
    )
    for table in tables:
        limit = min(0.05, table.num_embeddings**-0.5)
        nn.init.uniform_(table.weight, -limit, limit)
    return tables


def _mlp(nn: Any, widths: list[int], *, last_relu: bool) -> Any:
    layers: list[Any] = []
    for index in range(len(widths) - 1):
        layers.append(nn.Linear(widths[index], widths[index + 1]))
        if last_relu or index < len(widths) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _module_class(torch: Any) -> Any:
    # A class made in a function: its base exists only once torch is imported.
    class Dlrm(torch.nn.Module):  # type: ignore[misc]
        """Tables, bottom MLP, interaction, top MLP."""

        def __init__(self, tables: Any, bottom: Any, top: Any, config: DlrmConfig) -> None:
            super().__init__()
            self.tables, self.bottom, self.top = tables, bottom, top
            self.dot, self.bags = config.interaction == "dot", config.bags
            self.probability, self.lookups = config.probability, config.lookups
            vectors = len(tables) + 1
            rows, columns = torch.tril_indices(vectors, vectors, offset=-1)
            self.register_buffer("pairs", rows * vectors + columns, persistent=False)

        def forward(self, dense: Any, sparse: Any) -> Any:
            """Scores [B, 1] of dense [B, features] and ids [B, tables * lookups]."""
            base, each = self.bottom(dense), self.lookups
            found = [
                table(sparse[:, index * each : (index + 1) * each] if self.bags else sparse[:, index])
                for index, table in enumerate(self.tables)
            ]
            if self.dot:
                vectors = torch.stack([base, *found], dim=1)
                products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
                met = torch.cat([base, torch.index_select(products, 1, self.pairs)], dim=1)
            else:
                met = torch.cat([base, *found], dim=1)
            score = self.top(met)
            return torch.sigmoid(score) if self.probability else score

    return Dlrm
