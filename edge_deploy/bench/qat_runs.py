"""Single trainings of `make bench-qat`, kept one file each: a run that was stopped goes on where it was.

Float and INT4 get the same budget: the same learning rates are tried with the first seed, the one of the best
validation AUC is taken for the other seeds, and all stop early by the same rule. Where INT4 begins, which scales it
has and how wide its MLP is was chosen on the validation rows of the log of seed 0; the log of seed 1 is judged. On
small logs all start from the same tuned float weights and go on with a fraction of their rate, the float model too;
what they started from may be kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.compress.batches import ArrayBatches
from converters.compress.dqrm import DqrmPlan, finish, prepare
from converters.compress.train import TrainPlan, predict, train
from edge_deploy.bench.rows import revision
from edge_deploy.core.features import encode_rows
from edge_deploy.core.serde import to_json
from edge_deploy.zoo.click_models import read_dataset
from edge_deploy.zoo.clicks import fit_features
from edge_deploy.zoo.criteo_generator import GeneratedLog, generate_arrays
from edge_deploy.zoo.dlrm import DlrmConfig, build

__all__ = [
    "KAGGLE_ROWS",
    "USUAL",
    "Rows",
    "Run",
    "Setting",
    "Task",
    "generated_task",
    "kept_run",
    "public_task",
    "tuned",
]

HOME = Path("build/bench-qat")
# Of the Criteo Kaggle log (Zhou et al., arXiv:2410.20046, in its code).
KAGGLE_ROWS = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
GENERATED_ROWS, HELD_ROWS, LARGEST_TABLE = 2_000_000, 200_000, 100_000
SCORE_BATCH = 8192
# What `edge-deploy train --bits 4` does behind the first part of the first epoch.
USUAL = DqrmPlan(table_range="mse", refresh_steps=50, mlp_bits=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Encoded rows of one part."""

    dense: np.ndarray
    ids: np.ndarray
    labels: np.ndarray

    def batches(self, size: int = SCORE_BATCH, *, shuffle: bool = False, seed: int = 0) -> ArrayBatches:
        """Mini-batches of these rows."""
        return ArrayBatches(dense=self.dense, ids=self.ids, labels=self.labels, batch=size, shuffle=shuffle, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A log and the model that is trained on it.

    Attributes:
        data: Reads the three parts; called only when a run must be made.
        told: What identifies log and model, for reports and for files of former runs.
        rates: Learning rates that every kind of training may try.
        second: How training goes on from tuned float weights; None trains every kind from the beginning.
        fractions: Of the float weights' rate, that going on may try.
    """

    name: str
    data: Callable[[], tuple[Rows, Rows, Rows, tuple[int, ...]]]
    told: dict[str, Any]
    rates: tuple[float, ...]
    plan: TrainPlan
    batch: int
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    dim: int
    second: TrainPlan | None = None
    fractions: tuple[float, ...] = (0.03, 0.1, 0.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A kind of training: in float, or fake-quantized.

    Attributes:
        float_share: Of the first epoch that is trained in float, where training does not go on from float weights.
    """

    name: str
    quantized: DqrmPlan | None = None
    float_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        scores: float32 probabilities of the test rows.
        after: The same of the float model quantized after training, by name.
        labels: Of the test rows.
        weights: The state dict, of float models that training goes on from.
    """

    rate: float
    seed: int
    validation_auc: float
    steps: int
    best_step: int
    step_seconds: float
    labels: np.ndarray
    scores: np.ndarray
    after: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def generated_task() -> Task:
    """2 M generated rows of Kaggle's tables, none above 100,000 rows; 200,000 rows validate, 200,000 test."""
    tables = tuple(min(rows, LARGEST_TABLE) for rows in KAGGLE_ROWS)
    log = GeneratedLog(table_rows=tables, exponent=1.1, seed=1)

    def data() -> tuple[Rows, Rows, Rows, tuple[int, ...]]:
        made = generate_arrays(rows=GENERATED_ROWS, log=log)
        ends = (0, GENERATED_ROWS - 2 * HELD_ROWS, GENERATED_ROWS - HELD_ROWS, GENERATED_ROWS)
        train_rows, validation, test = (
            Rows(dense=made.dense[a:b], ids=made.ids[a:b], labels=made.labels[a:b]) for a, b in itertools.pairwise(ends)
        )
        return train_rows, validation, test, made.table_rows

    return Task(
        name="generated",
        data=data,
        told={"log": to_json(log), "rows": GENERATED_ROWS},
        rates=(0.02, 0.04, 0.08),
        plan=TrainPlan(epochs=2, patience=2, evaluate_every=195, checkpoint_every=1_000_000),
        batch=2048,
        bottom=(64,),
        top=(128, 64),
        dim=16,
    )


def public_task(name: str, folder: Path) -> Task:
    """A published log by its name in `edge_deploy.zoo.click_models`, in its customary split."""

    def data() -> tuple[Rows, Rows, Rows, tuple[int, ...]]:
        log = read_dataset(name, folder)
        spec = fit_features(log)
        parts = []
        for part in (log.train, log.validation, log.test):
            dense, ids = encode_rows(spec, part.rows)
            parts.append(Rows(dense=dense, ids=ids, labels=part.labels))
        return parts[0], parts[1], parts[2], spec.table_rows

    return Task(
        name=name,
        data=data,
        told={"log": name},
        rates=(0.005, 0.01, 0.02, 0.05),
        plan=TrainPlan(epochs=15, patience=3, checkpoint_every=1_000_000),
        batch=256,
        bottom=(64,),
        top=(64, 32),
        dim=16,
        second=TrainPlan(epochs=5, patience=3, checkpoint_every=1_000_000),
    )


def tuned(task: Task, setting: Setting, seeds: int, *, fresh: bool, tell: Callable[[str], None]) -> list[Run]:
    """A run for each seed at the rate that did best on the first seed's validation rows."""
    held: list[tuple[Rows, Rows, Rows, tuple[int, ...]]] = []

    def data() -> tuple[Rows, Rows, Rows, tuple[int, ...]]:
        if not held:
            tell(f"{task.name}: data")
            held.append(task.data())
        return held[0]

    def run(kind: Setting, rate: float, seed: int, start: Run | None) -> Run:
        goes_on = "" if start is None else f" on from {start.rate}"
        tell(f"{task.name}, {kind.name}: rate {rate:g}{goes_on}, seed {seed}")
        return kept_run(task, kind, rate, seed, data, start=start, fresh=fresh)

    def best_of(kind: Setting, rates: tuple[float, ...], starts: list[Run | None]) -> list[Run]:
        tried = [run(kind, rate, 0, starts[0]) for rate in rates]
        best = max(tried, key=lambda found: found.validation_auc)
        return [best, *(run(kind, best.rate, seed, starts[seed]) for seed in range(1, seeds))]

    if task.second is None:
        return best_of(setting, task.rates, [None] * seeds)
    first = best_of(Setting(name="float32, first"), task.rates, [None] * seeds)
    return best_of(setting, tuple(first[0].rate * part for part in task.fractions), [*first])


def kept_run(
    task: Task,
    setting: Setting,
    rate: float,
    seed: int,
    data: Callable[[], tuple[Rows, Rows, Rows, tuple[int, ...]]],
    *,
    start: Run | None = None,
    fresh: bool,
) -> Run:
    """The run that a former bench left in `build/bench-qat`, or one that is made now."""
    told = {
        **task.told,
        "plan": to_json(task.plan),
        "batch": task.batch,
        "model": [task.dim, task.bottom, task.top],
        "quantized": to_json(setting.quantized),
        "float_share": setting.float_share,
        "rate": rate,
        "seed": seed,
    }
    if task.second is not None and start is not None:
        told |= {"second": to_json(task.second), "start": start.rate}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    file = HOME / "runs" / f"{task.name}-{setting.name}-{rate:g}-{seed}-{key}.npz"
    if not file.exists() or fresh:
        arrays = _made(task, setting, rate, seed, data(), start)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, allow_pickle=False, revision=np.array(revision()), **arrays)
        partial.replace(file)
    with np.load(file, allow_pickle=False) as found:
        return Run(
            rate=rate,
            seed=seed,
            validation_auc=float(found["validation_auc"]),
            steps=int(found["steps"]),
            best_step=int(found["best_step"]),
            step_seconds=float(found["step_seconds"]),
            labels=found["labels"],
            scores=found["scores"],
            after={name[6:]: found[name] for name in found.files if name.startswith("after ")},
            weights={name[8:]: found[name] for name in found.files if name.startswith("weights ")},
        )


def _made(
    task: Task,
    setting: Setting,
    rate: float,
    seed: int,
    data: tuple[Rows, Rows, Rows, tuple[int, ...]],
    start: Run | None,
) -> dict[str, np.ndarray]:
    import torch

    training, validation, test, tables = data
    config = DlrmConfig(
        dense_features=training.dense.shape[1],
        table_rows=tables,
        dim=task.dim,
        bottom=task.bottom,
        top=task.top,
        bags=True,
        seed=seed,
    )
    model = build(config)
    plan = task.plan
    if start is not None and task.second is not None:
        plan = task.second
        model.load_state_dict({name: torch.from_numpy(values) for name, values in start.weights.items()})
    own = training.batches(task.batch, shuffle=True, seed=seed)
    if setting.quantized is not None:
        first = 0 if start is not None else round(setting.float_share * own.steps)
        prepare(model, dataclasses.replace(setting.quantized, start_step=first))
    plan = dataclasses.replace(plan, rate=rate)
    done = train(model, own, validation.batches(), plan, look_first=start is not None)
    if setting.quantized is not None:
        finish(model)
    labels, scores = predict(model, test.batches())
    arrays = {
        "validation_auc": np.array(done.validation_auc),
        "steps": np.array(done.steps),
        "best_step": np.array(done.best_step),
        "step_seconds": np.array(done.seconds_per_step),
        "labels": labels.astype(np.uint8),
        "scores": scores.astype(np.float32),
    }
    if task.second is not None and start is None:
        arrays |= {f"weights {name}": tensor.numpy() for name, tensor in model.state_dict().items()}
    if setting.quantized is None:
        trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for kind in ("table", "row"):
            after = build(config)
            after.load_state_dict(trained)
            # Without a step between them, this is min-max quantization after training on the same grids.
            prepare(after, DqrmPlan(table_scale=kind, mlp_bits=8))
            finish(after)
            arrays[f"after {kind}"] = predict(after, test.batches())[1].astype(np.float32)
    return arrays
