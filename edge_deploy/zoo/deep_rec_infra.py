"""The eight models of DeepRecInfra (Gupta et al., ISCA 2020, arXiv:2001.02772) as configurations.

Sizes are those of the authors' published configuration files. DLRM-RMC1 to RMC3 and Wide & Deep are plain `DlrmConfig`
values; NCF, multi-task Wide & Deep, DIN and DIEN are made by `build`. Where the authors' benchmark nets end in several
outputs without a meaning, ours end in what can be trained: one logit, or one for each task.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from edge_deploy.zoo.dlrm import DlrmConfig
from edge_deploy.zoo.dlrm import build as build_dlrm

if TYPE_CHECKING:
    import torch

__all__ = ["MODELS", "OtherConfig", "build", "shrunk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherConfig:
    """A recommender that is no DLRM.

    Attributes:
        kind: NCF (He et al., 2017), multi-task Wide & Deep (Zhao et al., 2019), DIN (Zhou et al., 2018) or DIEN
            (Zhou et al., 2019).
        dense_features: Columns of the dense input; 0 where the net has none (it is then given, and not read).
        table_rows: In order; of DIN and DIEN: user profile, behaviours in order of time, candidate, context.
        lookups: Ids that each table's bag sums.
        top: Hidden layers of the last MLP; of MT-Wide & Deep, the shared ones.
        task: Hidden layers of each task's head.
        attention: Hidden layers of the unit that compares a behaviour with the candidate.
    """

    kind: Literal["ncf", "multi-task", "din", "dien"]
    table_rows: tuple[int, ...]
    dim: int
    top: tuple[int, ...]
    dense_features: int = 0
    lookups: int = 1
    tasks: int = 1
    task: tuple[int, ...] = ()
    attention: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"ncf": 4, "multi-task": 1, "din": 4, "dien": 4}[self.kind]
        if len(self.table_rows) < least or (self.kind == "ncf" and len(self.table_rows) != 4):
            raise BadInput(
                f"{self.kind}: {len(self.table_rows)} tables: needs {'exactly' if least == 4 else ''} {least}."
            )
        if min(*self.table_rows, self.dim, self.lookups, self.tasks) < 1:
            raise BadInput(f"{self.kind}: all sizes must be at least 1.")


def _dlrm(
    dense: int, bottom: tuple[int, ...], top: tuple[int, ...], rows: tuple[int, ...], dim: int, lookups: int
) -> DlrmConfig:
    return DlrmConfig(
        dense_features=dense,
        table_rows=rows,
        dim=dim,
        bottom=bottom,
        top=top,
        interaction="concat",
        bags=True,
        lookups=lookups,
    )


_MANY = (*((500_000,) * 41), 5_000_000, 5_000_000)
MODELS: dict[str, DlrmConfig | OtherConfig] = {
    "dlrm-rmc1": _dlrm(128, (64, 32), (256, 64), (4_000_000,) * 8, 32, 80),
    "dlrm-rmc2": _dlrm(256, (128, 64), (128, 64), (500_000,) * 32, 64, 120),
    "dlrm-rmc3": _dlrm(2560, (1024, 256, 32), (512, 256), (2_000_000,) * 10, 32, 20),
    "ncf": OtherConfig(kind="ncf", table_rows=(140_000, 140_000, 28_000, 28_000), dim=64, top=(256, 256, 128, 64)),
    "wide-and-deep": _dlrm(512, (), (1024, 512, 256), (1_000_000,) * 27, 32, 1),
    "multi-task-wide-and-deep": OtherConfig(
        kind="multi-task", dense_features=512, table_rows=_MANY, dim=32, top=(1024, 512), tasks=2, task=(256, 128)
    ),
    "din": OtherConfig(
        kind="din",
        table_rows=(1_000_000, *((100_000,) * 250), 10_000_000, 10_000_000),
        dim=32,
        top=(200, 80),
        lookups=3,
        attention=(1,),
    ),
    "dien": OtherConfig(kind="dien", dense_features=512, table_rows=_MANY, dim=32, top=(200, 80)),
}
"""By name; rows are the authors', some gigabytes of tables each. `shrunk` makes them small."""


def shrunk(config: DlrmConfig | OtherConfig, *, rows: int, tables: int | None = None) -> DlrmConfig | OtherConfig:
    """The same model with at most so many rows in a table, and at most so many tables."""
    sizes = tuple(min(rows, own) for own in config.table_rows)
    if tables is not None and len(sizes) > tables:
        sizes = (*sizes[: tables - 2], *sizes[-2:])  # DIN's and DIEN's last two have meanings of their own
    return dataclasses.replace(config, table_rows=sizes)


def build(config: DlrmConfig | OtherConfig) -> torch.nn.Module:
    """A module with forward(dense [B, features] float32, sparse [B, tables * lookups] int64) -> logits [B, outputs].

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    if isinstance(config, DlrmConfig):
        return build_dlrm(dataclasses.replace(config, probability=False))
    torch = require("torch", extra="run-executorch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _classes()[config.kind](config)


def _mlp(nn: Any, widths: list[int], *, ends_open: bool = True) -> Any:
    layers: list[Any] = []
    for index in range(len(widths) - 1):
        layers.append(nn.Linear(widths[index], widths[index + 1]))
        if index < len(widths) - 2 or not ends_open:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


@functools.cache
def _classes() -> dict[str, Any]:
    torch = require("torch", extra="run-executorch")
    nn = torch.nn

    class Base(nn.Module):  # type: ignore[misc,name-defined]
        """Tables as sums over `lookups` ids each."""

        def __init__(self, config: OtherConfig) -> None:
            super().__init__()
            self.lookups, self.dim = config.lookups, config.dim
            self.tables = nn.ModuleList(nn.EmbeddingBag(rows, config.dim, mode="sum") for rows in config.table_rows)
            for table in self.tables:
                limit = table.num_embeddings**-0.5
                nn.init.uniform_(table.weight, -limit, limit)

        def looked_up(self, sparse: Any) -> list[Any]:
            each = self.lookups
            return [table(sparse[:, i * each : (i + 1) * each]) for i, table in enumerate(self.tables)]

    class Ncf(Base):
        """Two vectors multiplied beside two that go through an MLP."""

        def __init__(self, config: OtherConfig) -> None:
            super().__init__(config)
            self.deep = _mlp(nn, [2 * config.dim, *config.top], ends_open=False)
            self.top = nn.Linear(config.dim + config.top[-1], 1)

        def forward(self, dense: Any, sparse: Any) -> Any:
            user, item, deep_user, deep_item = self.looked_up(sparse)
            deep = self.deep(torch.cat([deep_user, deep_item], dim=1))
            return self.top(torch.cat([user * item, deep], dim=1))

    class MultiTask(Base):
        """Wide & Deep with a shared MLP and a head for each task."""

        def __init__(self, config: OtherConfig) -> None:
            super().__init__(config)
            met = config.dense_features + len(config.table_rows) * config.dim
            self.shared = _mlp(nn, [met, *config.top], ends_open=False)
            widths = [config.top[-1], *config.task, 1]
            self.heads = nn.ModuleList(_mlp(nn, widths) for _ in range(config.tasks))

        def forward(self, dense: Any, sparse: Any) -> Any:
            shared = self.shared(torch.cat([dense, *self.looked_up(sparse)], dim=1))
            return torch.cat([head(shared) for head in self.heads], dim=1)

    class Din(Base):
        """Behaviours weighted by an attention unit that sees them beside the candidate."""

        def __init__(self, config: OtherConfig) -> None:
            super().__init__(config)
            self.attention = _mlp(nn, [3 * config.dim, *config.attention, config.dim])
            self.top = _mlp(nn, [4 * config.dim, *config.top, 1])

        def forward(self, dense: Any, sparse: Any) -> Any:
            profile, *behaviours, candidate, context = self.looked_up(sparse)
            seen = torch.stack(behaviours, dim=1)
            other = candidate.unsqueeze(1).expand_as(seen)
            interest = self.attention(torch.cat([seen, other, seen + other], dim=2)).sum(dim=1)
            return self.top(torch.cat([profile, interest, candidate, context], dim=1))

    class Dien(Base):
        """Behaviours in order of time through two GRUs; attention by the candidate stands between them."""

        def __init__(self, config: OtherConfig) -> None:
            super().__init__(config)
            self.interests = nn.GRU(config.dim, config.dim, batch_first=True)
            self.evolution = nn.GRU(config.dim, config.dim, batch_first=True)
            self.compare = nn.Linear(config.dim, config.dim)
            self.top = _mlp(nn, [4 * config.dim + config.dense_features, *config.top, 1])

        def forward(self, dense: Any, sparse: Any) -> Any:
            profile, *behaviours, candidate, context = self.looked_up(sparse)
            interests, _ = self.interests(torch.stack(behaviours, dim=1))
            scores = torch.bmm(self.compare(interests), candidate.unsqueeze(2))
            _, last = self.evolution(interests * torch.softmax(scores, dim=1))
            return self.top(torch.cat([dense, profile, last[0], candidate, context], dim=1))

    return {"ncf": Ncf, "multi-task": MultiTask, "din": Din, "dien": Dien}
