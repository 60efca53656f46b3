"""Train a DLRM on a click log: fit the features, encode, train in float or for INT4, lay down what a conversion takes.

A training that was killed goes on from its last checkpoint when the same request is made again. Started by torchrun it
divides the rows of each step among the processes. The folder it writes:

| file | what |
|---|---|
| `config.json` | `DlrmConfig` |
| `weights.pt` | the state dict, and trained scales where there are any |
| `NAME.py` | factory `NAME:NAME`, for `--source` |
| `features.json` (+ `vocabulary-K.json`) | raw rows to inputs, with golden rows of the test part |
| `calibration.npz`, `eval.npz` | training rows, test rows with labels |
| `counts.npz` | how often training looked each row of each table up |
| `training.json` | `TrainingReport` |
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.compress.batches import ArrayBatches
from converters.compress.data_parallel import GradientExchange, joined
from converters.compress.data_parallel import Kind as Exchanged
from converters.compress.dqrm import DqrmPlan, finish, prepare
from converters.compress.train import Trained, TrainPlan, predict, train
from converters.loading.checkpoint import load_weights
from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import FeatureSpec, GoldenRow, RowEncoder, read_features, write_features
from edge_deploy.core.publish import published_folder
from edge_deploy.core.require import require
from edge_deploy.core.robe import RobeHash, make_hash
from edge_deploy.core.serde import read_json, to_json, write_json
from edge_deploy.zoo import dlrm
from edge_deploy.zoo.click_models import FACTORY
from edge_deploy.zoo.click_schema import ClickSchema
from edge_deploy.zoo.click_stream import SPLIT, EncodedLog, encode_log, fit_stream, open_encoded, pieces
from edge_deploy.zoo.metrics import accuracy, auc, calibration, log_loss, normalized_entropy

if TYPE_CHECKING:
    import torch

__all__ = ["FLOAT_SHARE", "Quality", "TrainRequest", "TrainingReport", "train_recommender"]

FLOAT_SHARE = 0.9  # of the first epoch, before the bits come
GOLDEN_ROWS = 32
CALIBRATION_ROWS = 512
EVAL_ROWS = 50_000
SCORE_BATCH = 8192
REPORT, WEIGHTS, CONFIG = "training.json", "weights.pt", "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """A training as the user names it.

    Attributes:
        log: Click log, plain or gzip-compressed; divided 80/10/10 by the sha256 of its rows unless `validation` and
            `test` name files of their own.
        out: Folder to write; its state while it is not done lies beside it.
        quantized: Fake-quantize as this says; None trains in float.
        float_share: Of the first epoch: rows and layers are fake-quantized only after it, which costs less quality
            than from the first step on; without effect with `start`, where it is over.
        batch: Rows of a mini-batch, of each process.
        exchange: What of the gradients travels between processes, where torchrun started several.
        start: Folder of a former training, whose features, sizes and weights this one begins with.
        robe: How many times smaller than the tables the array is that they share; 0 for tables of their own.
        robe_block: Neighbouring values of it that are read together.
    """

    log: Path
    schema: ClickSchema
    out: Path
    plan: TrainPlan
    validation: Path | None = None
    test: Path | None = None
    quantized: DqrmPlan | None = None
    dim: int = 16
    bottom: tuple[int, ...] = (64,)
    top: tuple[int, ...] = (128, 64)
    interaction: str = "dot"
    batch: int = 2048
    seed: int = 0
    exchange: Exchanged = "sparse"
    robe: int = 0
    robe_block: int = 8
    start: Path | None = None
    float_share: float = FLOAT_SHARE

    def __post_init__(self) -> None:
        if not 0 <= self.float_share <= 1:
            raise BadInput(f"--float-share {self.float_share}: must lie in [0, 1].")
        if self.robe < 0 or self.robe == 1:
            raise BadInput(f"--robe {self.robe}: must be how many times smaller than the tables, at least 2.")
        if self.robe and self.quantized is not None and self.quantized.table_bits != 32:
            raise BadInput(
                "--robe: the shared array is trained in float and gets few bits when it is converted; leave out --bits."
            )
        if self.robe and self.start is not None:
            raise BadInput("--robe: a training that begins with a former one keeps its kind of tables; leave it out.")
        if (self.validation is None) != (self.test is None):
            raise BadInput("training: give files for both validation and test, or for neither.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Of probabilities on the test rows; see `edge_deploy.zoo.metrics`."""

    auc: float
    accuracy: float
    log_loss: float
    normalized_entropy: float
    calibration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What was trained and how good it is.

    Attributes:
        source: What to pass as `--source`, with the folder as current one.
        rows: Of training, validation and test.
        test: None where the log has no test row of one of the two labels.
        step_seconds: Median; of the run that ended the training.
        payload_bytes_a_step: What one process hands over in a step; 0 where there is one process only.
    """

    source: str
    rows: tuple[int, int, int]
    table_rows: tuple[int, ...]
    dense_features: int
    quantized: DqrmPlan | None
    steps: int
    best_step: int
    validation_auc: tuple[tuple[int, float], ...]
    test: Quality | None
    step_seconds: float
    processes: int = 1
    payload_bytes_a_step: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What the folder beside `out` was made for."""

    key: str
    sizes: tuple[int, int, int]


def train_recommender(
    request: TrainRequest,
    *,
    force: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
    hook: Callable[[int, float], None] | None = None,
) -> TrainingReport:
    """Train as asked and write `request.out`, whole or not at all.

    Args:
        force: Replace an existing folder.
        hook: Called after each step with its number and loss.

    Raises:
        BadInput: The log is damaged, has no row of a part, or a former state belongs to another request.
    """
    if request.out.exists() and not force:
        raise BadInput(f"{request.out}: exists already; choose another --out or pass --force to replace it.")
    if request.out.exists() and not (request.out / REPORT).is_file():
        raise BadInput(f"{request.out}: holds other things than a training; --force replaces only folders we wrote.")
    with joined(request.exchange) as exchange:
        return _trained(request, exchange, force=force, progress=progress, hook=hook)


def _trained(
    request: TrainRequest,
    exchange: GradientExchange | None,
    *,
    force: bool,
    progress: Callable[[str], None],
    hook: Callable[[int, float], None] | None,
) -> TrainingReport:
    writes = exchange is None or exchange.writes
    state = request.out.with_name(f".{request.out.name}.training")
    if exchange is not None and not writes:
        exchange.wait()  # until the log is encoded
    spec, log, sizes = _encoded(request, state, progress)
    if exchange is not None and writes:
        exchange.wait()
    config = _config(request, spec)
    model = dlrm.build(config)
    if request.start is not None:
        load_weights(model, request.start / WEIGHTS)
    batches = _batches(log, "train", request.batch, seed=request.seed, exchange=exchange)
    if request.quantized is not None:
        first = 0 if request.start is not None else round(request.float_share * batches.steps)
        prepare(model, dataclasses.replace(request.quantized, start_step=max(first, request.quantized.start_step)))
    progress("train")
    done = train(
        model,
        batches,
        _batches(log, "validation"),
        request.plan,
        checkpoint=state / "checkpoint.pt",
        hook=hook,
        exchange=exchange,
        look_first=request.start is not None,
    )
    scales = {} if request.quantized is None else finish(model)
    progress("evaluate")
    name = "dlrm_" + (re.sub(r"\W+", "_", request.log.name.partition(".")[0]) or "log")
    report = _report(request, name, model, log, spec, sizes, done, exchange)
    if writes:
        _write(request, name, config, spec, log, model, scales, report, force=force)
        shutil.rmtree(state, ignore_errors=True)
    return report


def _config(request: TrainRequest, spec: FeatureSpec) -> dlrm.DlrmConfig:
    if request.start is not None:
        known = dlrm.read_config(request.start / CONFIG)
        if (known.dense_features, known.table_rows) != (len(spec.dense), spec.table_rows):
            raise BadInput(
                f"{request.start}: its model has {known.dense_features} dense features and tables of "
                f"{known.table_rows} rows, its features make {len(spec.dense)} and {spec.table_rows}: they do not "
                "belong together."
            )
        return known
    return dlrm.DlrmConfig(
        dense_features=len(spec.dense),
        table_rows=spec.table_rows,
        dim=request.dim,
        bottom=request.bottom,
        top=request.top,
        interaction=request.interaction,  # type: ignore[arg-type]  # checked when it is made
        bags=True,
        seed=request.seed,
        robe=_shared(request, spec),
    )


def _write(
    request: TrainRequest,
    name: str,
    config: dlrm.DlrmConfig,
    spec: FeatureSpec,
    log: EncodedLog,
    model: Any,
    scales: dict[str, Any],
    report: TrainingReport,
    *,
    force: bool,
) -> None:
    torch = require("torch", extra="run-executorch")
    with published_folder(request.out, force=force) as folder:
        torch.save({**model.state_dict(), **scales}, folder / WEIGHTS)
        write_json(config, folder / CONFIG)
        (folder / f"{name}.py").write_text(FACTORY.format(module=name), encoding="utf-8")
        golden = _golden(request, spec, model)
        write_features(dataclasses.replace(spec, golden=golden), folder)
        _write_samples(folder, log, request.seed)
        _write_counts(folder, log, spec.table_rows)
        write_json(report, folder / REPORT)


def _shared(request: TrainRequest, spec: FeatureSpec) -> RobeHash | None:
    """The hash of an array that all tables share, so many times smaller than they are."""
    if not request.robe:
        return None
    block = min(request.robe_block, request.dim)
    size = max(block, sum(spec.table_rows) * request.dim // request.robe)
    return make_hash(size=size, dim=request.dim, block=block)


def _encoded(
    request: TrainRequest, state: Path, progress: Callable[[str], None]
) -> tuple[FeatureSpec, EncodedLog, tuple[int, int, int]]:
    """The fitted features and the encoded log: of a former run of the same request, or made now."""
    key, known = _key(request), state / "state.json"
    if known.exists():
        former = read_json(_State, known)
        if former.key != key:
            raise BadInput(f"{state}: belongs to another training (options or log differ); delete it to start anew.")
        progress("go on with the encoded log of a former run")
        return read_features(state), open_encoded(state), former.sizes
    shutil.rmtree(state, ignore_errors=True)  # of a run that ended while it encoded
    files = _files(request)
    progress("read the log: vocabularies, means, deviations")
    spec, sizes = fit_stream(files, request.schema)
    empty = [name for name, size in zip(SPLIT, sizes, strict=True) if not size]
    if empty:
        raise BadInput(f"{request.log}: {sum(sizes)} rows leave none for {' and '.join(empty)}; more rows are needed.")
    if request.start is not None:
        spec = _former_features(request.start, spec)
    progress(f"encode {sum(sizes)} rows")
    log = encode_log(files, request.schema, spec, sizes, state)
    write_features(spec, state)
    write_json(_State(key=key, sizes=sizes), known)
    return spec, log, sizes


def _former_features(start: Path, fitted: FeatureSpec) -> FeatureSpec:
    known = dataclasses.replace(read_features(start), golden=())
    if known.fields != fitted.fields:
        raise BadInput(
            f"{start}: was trained on columns {', '.join(known.fields)}; this log and schema give "
            f"{', '.join(fitted.fields)}: its tables do not fit."
        )
    return known


def _files(request: TrainRequest) -> list[tuple[Path, int | None]]:
    if request.validation is None or request.test is None:
        return [(request.log, None)]
    return [(request.log, 0), (request.validation, 1), (request.test, 2)]


def _key(request: TrainRequest) -> str:
    """Changes whenever the request or one of its files does."""
    told = {name: value for name, value in to_json(request).items() if name != "out"}
    digest = hashlib.sha256(repr(sorted(told.items())).encode())
    for path, _ in _files(request):
        try:
            stat = path.stat()
        except OSError as error:
            raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
        digest.update(f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns};".encode())
    return digest.hexdigest()


def _batches(
    log: EncodedLog,
    part: str,
    batch: int | None = None,
    *,
    seed: int = 0,
    exchange: GradientExchange | None = None,
) -> ArrayBatches:
    return ArrayBatches(
        dense=log.dense[part],
        ids=log.ids[part],
        labels=log.labels[part],
        batch=batch or SCORE_BATCH,
        shuffle=batch is not None,
        seed=seed,
        rank=0 if exchange is None else exchange.rank,
        world=1 if exchange is None else exchange.world,
    )


def _report(
    request: TrainRequest,
    name: str,
    model: torch.nn.Module,
    log: EncodedLog,
    spec: FeatureSpec,
    sizes: tuple[int, int, int],
    done: Trained,
    exchange: GradientExchange | None,
) -> TrainingReport:
    labels, scores = predict(model, _batches(log, "test"))
    test = None
    if 0 < labels.sum() < len(labels):
        test = Quality(
            auc=auc(labels, scores),
            accuracy=accuracy(labels, scores),
            log_loss=log_loss(labels, scores),
            normalized_entropy=normalized_entropy(labels, scores),
            calibration=calibration(labels, scores),
        )
    return TrainingReport(
        source=f"{name}:{name}",
        rows=sizes,
        table_rows=spec.table_rows,
        dense_features=len(spec.dense),
        quantized=request.quantized,
        steps=done.steps,
        best_step=done.best_step,
        validation_auc=done.curve,
        test=test,
        step_seconds=done.seconds_per_step,
        processes=1 if exchange is None else exchange.world,
        payload_bytes_a_step=0.0 if exchange is None else exchange.payload_bytes / max(1, done.steps),
    )


def _golden(request: TrainRequest, spec: FeatureSpec, model: Any) -> tuple[GoldenRow, ...]:
    torch = require("torch", extra="run-executorch")
    path, part = _files(request)[-1]
    rows: list[Sequence[str]] = []
    for piece in pieces(path, request.schema, part=part):
        rows += [row for row, own in zip(piece.rows, piece.parts.tolist(), strict=True) if own == 2]
        if len(rows) >= GOLDEN_ROWS:
            break
    rows = rows[:GOLDEN_ROWS]
    dense, ids = RowEncoder(spec)(rows)
    with torch.no_grad():
        scores = model(torch.from_numpy(dense), torch.from_numpy(ids)).reshape(-1).tolist()
    return tuple(
        GoldenRow(raw=tuple(raw), dense=tuple(d.tolist()), ids=tuple(i.tolist()), score=float(score))
        for raw, d, i, score in zip(rows, dense, ids, scores, strict=True)
    )


def _write_counts(folder: Path, log: EncodedLog, table_rows: tuple[int, ...]) -> None:
    """How often each row of each table was looked up by a training row: what `edge-deploy compress --counts` takes."""
    ids = log.ids["train"]
    counts = {f"tables.{k}": np.bincount(ids[:, k], minlength=rows) for k, rows in enumerate(table_rows)}
    np.savez(folder / "counts.npz", allow_pickle=False, **counts)


def _write_samples(folder: Path, log: EncodedLog, seed: int) -> None:
    generator = np.random.default_rng(seed)
    for name, part, most in (("calibration", "train", CALIBRATION_ROWS), ("eval", "test", EVAL_ROWS)):
        count = len(log.labels[part])
        rows = np.sort(generator.permutation(count)[:most])
        arrays = {"dense": log.dense[part][rows], "sparse": log.ids[part][rows].astype(np.int64)}
        if part == "test":
            arrays["y"] = log.labels[part][rows]
        np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)
