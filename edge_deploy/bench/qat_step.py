"""What a training step costs: float, INT4 by looked-up rows, and INT4 by whole tables; steps take turns."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np

from converters.compress.dqrm import DqrmPlan, prepare
from converters.compress.fake_quantize import straight_through, table_scale
from converters.compress.optimisers import make_optimisers
from converters.compress.replace import embeddings, replace_modules
from edge_deploy.bench.qat_runs import USUAL
from edge_deploy.bench.rows import markdown
from edge_deploy.zoo.dlrm import DlrmConfig, build

__all__ = ["step_table"]

TABLES, ROWS, DIM, DENSE = 8, 1_000_000, 16, 13
WHOLE_TABLES_STEPS = 3
ROUNDS = 40
LARGEST_RATIO = 1.15
BATCHES = (128, 2048)
REFRESHED = "INT4, scale of a table's largest value"
SEARCHED = "INT4, scale a table, searched"
# Steps between two looks for the scales: the paper's, for the Kaggle log, and those of `edge-deploy train`. A share of
# each look counts as part of a step.
REFRESH_STEPS = {REFRESHED: 200, SEARCHED: USUAL.refresh_steps}


def step_table() -> tuple[str, bool]:
    """Milliseconds a step with eight tables of a million rows, and whether INT4 training is cheap enough."""
    lines: list[list[object]] = []
    is_met = True
    for batch in BATCHES:
        found, looks = _measure(batch)
        base = found["float32"]
        for name, seconds in found.items():
            more = looks[name] / REFRESH_STEPS[name] if name in looks else 0.0
            ratio = statistics.median((own + more) / other for own, other in zip(seconds, base, strict=False))
            verdict = ""
            if name in looks:
                good = ratio <= LARGEST_RATIO
                is_met &= good
                verdict = f"{'met' if good else 'NOT MET'} (at most {LARGEST_RATIO})"
            milliseconds = 1e3 * (statistics.median(seconds) + more)
            lines.append([batch, name, f"{milliseconds:.1f}", f"{ratio:.2f}", verdict])
    return markdown(("batch", "training", "ms a step", "of float32", "wanted"), lines), is_met


def _measure(batch: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each step by kind of training, and of one look for the scales of all tables, where there are looks."""
    import torch

    generator = np.random.default_rng(0)
    plans = {
        "float32": None,
        REFRESHED: DqrmPlan(refresh_steps=1_000_000),
        SEARCHED: replace(USUAL, refresh_steps=1_000_000),
        "INT4, scale a row": DqrmPlan(table_scale="row"),
        "INT4, whole tables": "whole",
    }
    found: dict[str, list[float]] = {name: [] for name in plans}
    config = DlrmConfig(
        dense_features=DENSE,
        table_rows=(ROWS,) * TABLES,
        dim=DIM,
        bottom=(512, 256, 64),
        top=(512, 256),
        bags=True,
        probability=False,
    )
    made: dict[str, Any] = {}
    for name, plan in plans.items():
        model = build(config)
        if isinstance(plan, DqrmPlan):
            prepare(model, plan)
        elif plan == "whole":
            replace_modules(model, embeddings(model), lambda _, table: _whole_table(table))
        made[name] = (model, make_optimisers(model, "sgd", rate=0.1))
    loss_of = torch.nn.BCEWithLogitsLoss()
    for number in range(ROUNDS + 3):
        dense = torch.from_numpy(generator.normal(size=(batch, DENSE)).astype(np.float32))
        ids = torch.from_numpy((ROWS * generator.random((batch, TABLES)) ** 4).astype(np.int64))
        labels = torch.from_numpy(generator.integers(0, 2, batch).astype(np.float32))
        names = list(plans)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name == "INT4, whole tables" and number >= WHOLE_TABLES_STEPS + 3:
                continue
            model, optimisers = made[name]
            start = time.perf_counter()
            loss_of(model(dense, ids)[:, 0], labels).backward()
            optimisers.step()
            if number >= 3:
                found[name].append(time.perf_counter() - start)
    looks = {name: _look(made[name][0], batch) for name in REFRESH_STEPS}
    return found, looks


def _look(model: Any, batch: int) -> float:
    """Seconds of a look for the scales of all tables, through the rows of one step."""
    rows = [table.weight.detach()[:batch].unsqueeze(1).clone() for table in model.tables]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for table, looked_up in zip(model.tables, rows, strict=True):
            table.refresh(looked_up)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _whole_table(table: Any) -> Any:
    import torch

    class Whole(torch.nn.Module):  # type: ignore[misc]
        """What framework tools do: quantize the whole table at every step, then look up."""

        is_table = True

        def __init__(self) -> None:
            super().__init__()
            self.weight = table.weight

        def forward(self, ids: Any) -> Any:
            rows = straight_through(self.weight, table_scale(self.weight, 4), 4)
            return torch.nn.functional.embedding(ids[:, 0], rows)

    return Whole()
