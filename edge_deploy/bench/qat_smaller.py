"""Trainings behind `qat_robe` and `qat_hot_cold`: one generated log, tables whole, hashed or sharing an array.

Each training is kept in `build/bench-qat/smaller`, so that a bench that was stopped goes on where it was. All kinds get
the same budget: the same rates are tried with the first seed, the one of the best validation AUC serves the others.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from converters.compress.train import TrainPlan, predict, train
from edge_deploy.bench.qat_runs import KAGGLE_ROWS, Rows
from edge_deploy.bench.rows import revision
from edge_deploy.core.require import require
from edge_deploy.core.robe import make_hash
from edge_deploy.core.serde import to_json
from edge_deploy.zoo.criteo_generator import GeneratedLog, generate_arrays
from edge_deploy.zoo.dlrm import DlrmConfig, build
from edge_deploy.zoo.robe import shared_tables

__all__ = [
    "LOG_ROWS",
    "SEEDS",
    "Kind",
    "SmallerRun",
    "data",
    "hashed_rows",
    "kept_run",
    "make_model",
    "table_rows",
    "tuned",
]

HOME = Path("build/bench-qat/smaller")
LARGEST_TABLE = 20_000
LOG = GeneratedLog(table_rows=tuple(min(rows, LARGEST_TABLE) for rows in KAGGLE_ROWS), exponent=0.9, strength=2.6)
LOG_ROWS, HELD_ROWS = 61 * 8192, 100_000
DIM, BLOCK, BATCH = 16, 8, 2048
RATES = (0.007, 0.02, 0.06)
SEEDS = 3
PLAN = TrainPlan(epochs=4, patience=3, evaluate_every=73, checkpoint_every=1_000_000)
Kind: TypeAlias = Literal["full", "hashed", "robe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallerRun:
    """One training.

    Attributes:
        factor: How many times smaller than the full tables.
        elements: Numbers in the tables, or in the array.
        model: File with the state dict.
    """

    kind: Kind
    factor: int
    rate: float
    seed: int
    validation_auc: float
    elements: int
    labels: np.ndarray
    scores: np.ndarray
    model: Path


@functools.cache
def data() -> tuple[Rows, Rows, Rows]:
    """Training, validation and test rows; the last two are 100,000 each."""
    made = generate_arrays(rows=LOG_ROWS, log=LOG)
    first, second = LOG_ROWS - 2 * HELD_ROWS, LOG_ROWS - HELD_ROWS

    def part(a: int, b: int) -> Rows:
        return Rows(dense=made.dense[a:b], ids=made.ids[a:b], labels=made.labels[a:b])

    return part(0, first), part(first, second), part(second, LOG_ROWS)


def table_rows() -> tuple[int, ...]:
    """Rows of the full tables."""
    return tuple(rows + 1 for rows in LOG.table_rows)


def hashed_rows(factor: int) -> tuple[int, ...]:
    """Rows of tables capped alike, as many in all as the budget of 1/`factor` allows; ids are taken modulo them."""
    budget = sum(table_rows()) // factor
    low, high = 1, max(table_rows())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(min(r, middle) for r in table_rows()) <= budget else (low, middle - 1)
    return tuple(min(rows, low) for rows in table_rows())


def make_model(kind: Kind, factor: int, seed: int) -> Any:
    """An untrained DLRM."""
    rows = hashed_rows(factor) if kind == "hashed" else table_rows()
    config = DlrmConfig(dense_features=13, table_rows=rows, dim=DIM, bottom=(64,), top=(128, 64), bags=True, seed=seed)
    if kind != "robe":
        return build(config)
    model = build(replace(config, table_rows=(1,) * len(rows)))
    size = sum(rows) * DIM // factor
    model.tables = shared_tables(rows, make_hash(size=size, dim=DIM, block=BLOCK), mode="sum", seed=seed)
    return model


def _rows_for(kind: Kind, factor: int, rows: Rows) -> Rows:
    if kind != "hashed":
        return rows
    return replace(rows, ids=rows.ids % np.array(hashed_rows(factor), rows.ids.dtype))


def tuned(kind: Kind, factor: int, *, fresh: bool, tell: Callable[[str], None]) -> list[SmallerRun]:
    """A run for each seed at the best rate."""
    tried = [kept_run(kind, factor, rate, 0, fresh=fresh, tell=tell) for rate in RATES]
    best = max(tried, key=lambda run: run.validation_auc)
    rest = [kept_run(kind, factor, best.rate, seed, fresh=fresh, tell=tell) for seed in range(1, SEEDS)]
    return [best, *rest]


def kept_run(
    kind: Kind, factor: int, rate: float, seed: int, *, fresh: bool, tell: Callable[[str], None]
) -> SmallerRun:
    """The run that a former bench left, or one that is made now."""
    told = [kind, factor, rate, seed, LOG_ROWS, DIM, BLOCK, BATCH, to_json(LOG), to_json(PLAN)]
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    file = HOME / f"{kind}-{factor}-{rate}-{seed}-{key}.npz"
    if fresh or not file.exists():
        tell(f"{kind}, {factor} times smaller, rate {rate}, seed {seed}")
        file.parent.mkdir(parents=True, exist_ok=True)
        _make(kind, factor, rate, seed, file)
    with np.load(file, allow_pickle=False) as held:
        return SmallerRun(
            kind=kind,
            factor=factor,
            rate=rate,
            seed=seed,
            validation_auc=float(held["validation_auc"]),
            elements=int(held["elements"]),
            labels=held["labels"],
            scores=held["scores"],
            model=file.with_suffix(".pt"),
        )


def _make(kind: Kind, factor: int, rate: float, seed: int, file: Path) -> None:
    torch = require("torch", extra="run-executorch")
    training, validation, test = (_rows_for(kind, factor, rows) for rows in data())
    model = make_model(kind, factor, seed)
    done = train(
        model, training.batches(BATCH, shuffle=True, seed=seed), validation.batches(), replace(PLAN, rate=rate)
    )
    labels, scores = predict(model, test.batches())
    elements = sum(value.numel() for value in {id(p): p for p in model.tables.parameters()}.values())
    torch.save(model.state_dict(), file.with_suffix(".pt"))
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            allow_pickle=False,
            revision=np.array(revision()),
            validation_auc=np.array(done.validation_auc),
            elements=np.array(elements),
            labels=labels.astype(np.uint8),
            scores=scores.astype(np.float32),
        )
    partial.replace(file)
