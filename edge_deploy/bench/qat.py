"""`make bench-qat`: INT4 training of recommenders against float, and what a step of it costs.

Rows: `generated` (2 M generated rows), `movielens_100k` and `bank_marketing` (need EDGE_DEPLOY_DATA), `step`,
`parallel` (what two processes exchange), `robe` (tables that share an array, beside full and hashed ones), `hot` (INT4
tables with hot rows) and `cnn` (CNNs at INT4). BENCH="generated step" makes some of them; BENCH=--fresh makes all anew.
Trainings are kept in build/bench-qat.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from converters.compress.dqrm import DqrmPlan
from edge_deploy.api.train import FLOAT_SHARE
from edge_deploy.bench.qat_cnn import cnn_table
from edge_deploy.bench.qat_hot_cold import hot_table
from edge_deploy.bench.qat_parallel import parallel_table
from edge_deploy.bench.qat_robe import robe_table, speed_table
from edge_deploy.bench.qat_runs import USUAL, Run, Setting, Task, generated_task, public_task, tuned
from edge_deploy.bench.qat_step import step_table
from edge_deploy.bench.rows import markdown, revision
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.zoo.metrics import auc, log_loss, normalized_entropy, paired_difference

SEEDS = {"generated": 3, "movielens_100k": 5, "bank_marketing": 5}
LEAST = -0.001
FLOAT = Setting(name="float32")
# The first is what `edge-deploy train --bits 4` does, and what is judged.
SETTINGS = (
    Setting(name="INT4, scale a table", quantized=USUAL, float_share=FLOAT_SHARE),
    Setting(name="INT4, scale a row", quantized=DqrmPlan(table_scale="row", mlp_bits=8), float_share=FLOAT_SHARE),
)
COLUMNS = ("log", "model", "rate", "test AUC", "difference (95 %)", "log loss", "normalized entropy", "wanted")


def task_table(task: Task, *, seeds: int, fresh: bool) -> tuple[str, bool]:
    """Float, trained INT4 and INT4 after training on one log, and whether trained INT4 is good enough."""
    floats = tuned(task, FLOAT, seeds, fresh=fresh, tell=_tell)
    lines = [_line(task, FLOAT.name, floats, floats, [run.scores for run in floats], "")]
    is_met = True
    for setting in SETTINGS:
        runs = tuned(task, setting, seeds, fresh=fresh, tell=_tell)
        scores = [run.scores for run in runs]
        found = _differences(floats, scores)
        if task.name == "generated":
            value, what = float(np.median([low for _, low, _ in found])), "lower end of the interval"
        else:
            value, what = float(np.median([middle for middle, _, _ in found])), "difference"
        good = value >= LEAST
        is_met &= good or setting is not SETTINGS[0]
        verdict = f"{'met' if good else 'NOT MET'} ({what} {value:+.4f}, at least {LEAST})"
        lines.append(_line(task, f"{setting.name}, trained", floats, runs, scores, verdict))
    for kind in ("table", "row"):
        scores = [run.after[kind] for run in floats]
        lines.append(_line(task, f"INT4, scale a {kind}, after training", floats, floats, scores, ""))
    return markdown(COLUMNS, lines), is_met


def _tell(text: str) -> None:
    print(f"- {text}", file=sys.stderr, flush=True)


def _differences(floats: list[Run], scores: list[np.ndarray]) -> list[tuple[float, float, float]]:
    found = [paired_difference("auc", run.labels, run.scores, own) for run, own in zip(floats, scores, strict=True)]
    return [(each.difference, each.low, each.high) for each in found]


def _line(
    task: Task, name: str, floats: list[Run], runs: list[Run], scores: list[np.ndarray], verdict: str
) -> list[object]:
    labels = floats[0].labels
    values = [auc(labels, own) for own in scores]
    middle, low, high = (float(np.median(each)) for each in zip(*_differences(floats, scores), strict=True))
    return [
        task.name,
        name,
        runs[0].rate,
        f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, {len(values)} seeds)",
        "" if scores[0] is floats[0].scores else f"{middle:+.4f} ({low:+.4f} to {high:+.4f})",
        f"{np.median([log_loss(labels, own) for own in scores]):.4f}",
        f"{np.median([normalized_entropy(labels, own) for own in scores]):.4f}",
        verdict,
    ]


def main(arguments: list[str]) -> int:
    """Make or complete the tables and print them as Markdown; 1 when something wanted is not met."""
    fresh = "--fresh" in arguments
    only = [word for word in arguments if not word.startswith("--")]
    data = os.environ.get("EDGE_DEPLOY_DATA")
    tasks: dict[str, Callable[[], Task]] = {"generated": generated_task}
    if data:
        folder = Path(data)
        tasks |= {name: functools.partial(public_task, name, folder) for name in ("movielens_100k", "bank_marketing")}
    others = ("step", "parallel", "robe", "hot", *(("cnn",) if data else ()))
    unknown = [word for word in only if word not in (*tasks, *others)]
    if unknown:
        print(f"unknown rows: {', '.join(unknown)}; known: {', '.join((*tasks, *others))}", file=sys.stderr)
        return 2
    print(f"revision {revision()}; medians over the seeds, intervals by DeLong\n")
    all_met = True
    for name, task in tasks.items():
        if only and name not in only:
            continue
        text, is_met = task_table(task(), seeds=SEEDS[name], fresh=fresh)
        print(f"{text}\n", flush=True)
        all_met &= is_met
    if not only or "step" in only:
        text, is_met = step_table()
        print(f"{text}\n", flush=True)
        all_met &= is_met
    if not only or "parallel" in only:
        print(f"{parallel_table(fresh=fresh)}\n", flush=True)
    if not only or "robe" in only:
        text, is_met = robe_table(fresh=fresh, tell=_tell)
        print(f"{text}\n\n{speed_table(fresh=fresh)}\n", flush=True)
        all_met &= is_met
    if not only or "hot" in only:
        print(hot_table(fresh=fresh, tell=_tell), flush=True)
    if "cnn" in others and (not only or "cnn" in only):
        text, is_met = cnn_table(fresh=fresh, tell=_tell)
        print(f"\n{text}", flush=True)
        all_met &= is_met
    return int(not all_met)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
