"""What travels between two training processes: dense, sparse and INT8 gradients, and the AUC with each.

`python -m edge_deploy.bench.qat parallel` makes the rows; this module is also what torchrun starts in each process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from converters.compress.batches import ArrayBatches
from converters.compress.data_parallel import Kind, joined
from converters.compress.dqrm import finish, prepare
from converters.compress.train import TrainPlan, predict, train
from edge_deploy.api.train import FLOAT_SHARE
from edge_deploy.bench.qat_runs import HOME, KAGGLE_ROWS, LARGEST_TABLE, USUAL
from edge_deploy.bench.rows import markdown, revision
from edge_deploy.core.errors import ToolchainError
from edge_deploy.zoo.criteo_generator import GeneratedLog, generate_arrays
from edge_deploy.zoo.dlrm import DlrmConfig, build
from edge_deploy.zoo.metrics import auc

__all__ = ["parallel_table"]

PROCESSES, SEEDS = 2, 3
ROWS, HELD = 400_000, 50_000
PLAN = TrainPlan(epochs=1, rate=0.04, evaluate_every=40, checkpoint_every=1_000_000)
BATCH = 1024
COLUMNS = ("gradients", "bytes a step and process", "of dense", "test AUC", "ms a step")


def parallel_table(*, fresh: bool) -> str:
    """Bytes that one of two processes hands over in a step of INT4 training, by kind of exchange."""
    rows = {kind: [_kept(kind, seed, fresh=fresh) for seed in range(SEEDS)] for kind in get_args(Kind)}
    dense = statistics.median(run["bytes"] for run in rows["dense"])
    lines = []
    for kind, runs in rows.items():
        sent = statistics.median(run["bytes"] for run in runs)
        values = [run["auc"] for run in runs]
        lines.append(
            [
                kind,
                f"{sent:,.0f}",
                f"1/{dense / sent:.0f}",
                f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, {SEEDS} seeds)",
                f"{1e3 * statistics.median(run['seconds'] for run in runs):.0f}",
            ]
        )
    title = f"{PROCESSES} processes, batch {BATCH} each, INT4 with a scale a table, {ROWS - 2 * HELD} rows"
    return f"{title}\n\n{markdown(COLUMNS, lines)}"


def _kept(kind: str, seed: int, *, fresh: bool) -> dict[str, Any]:
    file = HOME / "parallel" / f"{kind}-{seed}.json"
    if not file.exists() or fresh:
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"- {PROCESSES} processes, {kind} gradients, seed {seed}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        command += [
            "--nproc-per-node",
            str(PROCESSES),
            "-m",
            "edge_deploy.bench.qat_parallel",
            kind,
            str(seed),
            str(file),
        ]
        environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **os.environ}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise ToolchainError(f"torchrun: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def worker(kind: Kind, seed: int, file: Path) -> None:
    """One process of a training; the first one writes what came out."""
    log = GeneratedLog(table_rows=tuple(min(rows, LARGEST_TABLE) for rows in KAGGLE_ROWS), exponent=1.1)
    made = generate_arrays(rows=ROWS, log=log)

    def part(start: int, stop: int, **options: Any) -> ArrayBatches:
        own = slice(start, stop)
        return ArrayBatches(dense=made.dense[own], ids=made.ids[own], labels=made.labels[own], **options)

    held = part(ROWS - 2 * HELD, ROWS - HELD, batch=8192, shuffle=False)
    test = part(ROWS - HELD, ROWS, batch=8192, shuffle=False)
    config = DlrmConfig(
        dense_features=13, table_rows=made.table_rows, bottom=(64,), top=(128, 64), bags=True, seed=seed
    )
    with joined(kind) as exchange:
        assert exchange is not None, "torchrun starts several processes"
        shared = part(0, ROWS - 2 * HELD, batch=BATCH, seed=seed, rank=exchange.rank, world=exchange.world)
        model = build(config)
        prepare(model, replace(USUAL, start_step=round(FLOAT_SHARE * shared.steps)))
        done = train(model, shared, held, replace(PLAN), exchange=exchange)
        finish(model)
        labels, scores = predict(model, test)
        if exchange.writes:
            found = {
                "revision": revision(),
                "auc": auc(labels, scores),
                "bytes": exchange.payload_bytes / done.steps,
                "steps": done.steps,
                "seconds": done.seconds_per_step,
            }
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(found), encoding="utf-8")
            partial.replace(file)


if __name__ == "__main__":
    worker(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))  # type: ignore[arg-type]  # joined checks the kind
