"""Rows of `make bench-qat`: bytes and AUC of INT4 tables with 0, 1, 2, 5 and 10 % of their rows kept hot.

Rows are hot by their counts in the training rows; tables are compressed after training (`edge-deploy compress`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from converters.compress.replace import embeddings
from converters.compress.tables import TablePlan, compress_table, hottest
from converters.compress.train import predict
from converters.recommender.hot_rows import directory_bytes
from edge_deploy.bench.qat_smaller import SmallerRun, data, make_model, table_rows, tuned
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.require import require
from edge_deploy.zoo.metrics import auc, paired_difference

__all__ = ["hot_table"]

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1)
COLUMNS = (
    "cold rows",
    "hot rows, float16",
    "look-ups that hit them",
    "MB",
    "of float32",
    "test AUC",
    "difference (95 %)",
)


def hot_table(*, fresh: bool, tell: Callable[[str], None]) -> str:
    """The table in Markdown, medians over the seeds."""
    runs = tuned("full", 1, fresh=fresh, tell=tell)
    lines: list[list[object]] = [_float_line(runs)]
    for bits, scale in ((4, "row"), (4, "table"), (8, "row")):
        for share in SHARES:
            found = [
                kept(
                    runs[0].model.parent / "hot",
                    f"{run.model.stem}-int{bits}-{scale}-{share}",
                    lambda run=run, bits=bits, scale=scale, share=share: _measure(run, bits, scale, share),  # type: ignore[misc]
                    fresh=fresh,
                )
                for run in runs
            ]
            values = {name: float(np.median([each[name] for each in found])) for name in found[0]}
            lines.append(
                [
                    f"INT{bits}, scale a {scale}",
                    f"{share:.0%}",
                    f"{values['hits']:.1%}",
                    f"{values['bytes'] / 1e6:.3f}",
                    f"{values['bytes'] / _float_bytes():.1%}",
                    f"{values['auc']:.4f}",
                    f"{values['difference']:+.4f} ({values['low']:+.4f} to {values['high']:+.4f})",
                ]
            )
    return markdown(COLUMNS, lines)


def _float_bytes() -> int:
    return sum(table_rows()) * 16 * 4


def _float_line(runs: list[SmallerRun]) -> list[object]:
    values = [auc(run.labels, run.scores) for run in runs]
    return ["float32", "", "", f"{_float_bytes() / 1e6:.3f}", "100.0%", f"{np.median(values):.4f}", ""]


def _measure(run: SmallerRun, bits: int, scale: str, share: float) -> dict[str, float]:
    torch = require("torch", extra="run-executorch")
    model = make_model("full", 1, run.seed)
    model.load_state_dict(torch.load(run.model, weights_only=True))
    training, _, test = data()
    tables: dict[str, Any] = embeddings(model)
    columns = {name: training.ids[:, index] for index, name in enumerate(tables)}
    counts = {name: np.bincount(columns[name], minlength=table.num_embeddings) for name, table in tables.items()}
    hot = hottest(counts, share)
    plan = TablePlan(bits=bits, scale=scale)  # type: ignore[arg-type]  # one of two
    size = hits = 0
    for name, table in tables.items():
        weight = table.weight.detach().numpy()
        made = compress_table(weight, plan, hot[name])
        with torch.no_grad():
            table.weight.copy_(torch.from_numpy(made.values))
        rows, dim = weight.shape
        cold = rows - len(made.hot)
        size += (
            len(made.hot) * dim * 2 + cold * (dim * bits // 8 + (2 if scale == "row" else 0)) + (scale == "table") * 4
        )
        size += directory_bytes(rows) if 0 < len(made.hot) < rows else 0
        hits += int(counts[name][made.hot].sum())
    labels, scores = predict(model, test.batches())
    found = paired_difference("auc", labels, run.scores, scores.astype(np.float32))
    return {
        "hits": hits / sum(int(each.sum()) for each in counts.values()),
        "bytes": float(size),
        "auc": auc(labels, scores),
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


if __name__ == "__main__":
    print(f"revision {revision()}; medians over three seeds, intervals by DeLong\n")
    try:
        print(hot_table(fresh="--fresh" in sys.argv[1:], tell=lambda text: print(f"- {text}", file=sys.stderr)))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
