"""Click models, trained from a named log and laid down as files that a conversion takes.

Demo and benchmarks use it. The folder it writes:

| file | what |
|---|---|
| `config.json` | `DlrmConfig` |
| `weights.pt` | the state dict |
| `dlrm_NAME.py` | factory `dlrm_NAME:dlrm_NAME`, for `--source` with this folder on the search path |
| `features.json` (+ `vocabulary-K.json`) | raw rows to inputs, with 32 golden rows of the test part |
| `calibration.npz` | `dense`, `sparse`: training rows |
| `eval.npz` | `dense`, `sparse`, `y`: test rows |
| `training.json` | `TrainedClickModel`: sizes and AUC |
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_deploy.core.digest import sample_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import FeatureSpec, GoldenRow, encode_rows, write_features
from edge_deploy.core.require import require
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo import bank_marketing, criteo, dlrm, movielens
from edge_deploy.zoo.clicks import ClickLog, Part, fit_features
from edge_deploy.zoo.criteo_generator import CHUNK_ROWS, GeneratedLog, write_log
from edge_deploy.zoo.dlrm_training import EncodedPart, TrainingPlan, score, train
from edge_deploy.zoo.metrics import auc

if TYPE_CHECKING:
    import torch

__all__ = ["DATASETS", "TrainedClickModel", "read_dataset", "train_click_model"]

DATASETS = ("bank_marketing", "movielens_100k", "criteo_generated", "criteo")
FOLDERS = {"bank_marketing": "bank_marketing_45k", "movielens_100k": "movielens_100k", "criteo": "criteo_kaggle_8k"}
GOLDEN_ROWS = 32
GENERATED_ROWS = 5 * CHUNK_ROWS

FACTORY = '''"""Factory of the DLRM whose weights lie beside this file, for --source {module}:{module}."""

from pathlib import Path

from edge_deploy.zoo import dlrm


def {module}():
    """The module without its weights, as config.json describes it."""
    return dlrm.build(dlrm.read_config(Path(__file__).with_name("config.json")))
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedClickModel:
    """What was trained, and how good the float model is.

    Attributes:
        source: What to pass as `--source`, with the folder on the search path.
        inputs: Of the module, with a batch of one; ids carry the rows of their tables.
        validation_auc: After each epoch.
        test_auc: Of the best epoch's weights, on the rows of `eval.npz`.
    """

    dataset: str
    source: str
    inputs: tuple[TensorInfo, ...]
    train_rows: int
    test_rows: int
    table_rows: tuple[int, ...]
    dense_features: int
    dim: int
    validation_auc: tuple[float, ...]
    test_auc: float


def read_dataset(name: str, folder: Path | None, *, seed: int = 0) -> ClickLog:
    """A click log by name.

    Args:
        name: One of `DATASETS`; "criteo_generated" needs no data.
        folder: The data set's own folder, or one that holds it, as `ctr/bank_marketing_45k` below it.
        seed: Of the generated log.

    Raises:
        BadInput: No such data set, or its files are missing or damaged.
    """
    if name not in DATASETS:
        raise BadInput(f"data set {name}: unknown; known: {', '.join(DATASETS)}.")
    if name == "criteo_generated":
        return _generated(seed)
    if folder is None:
        raise BadInput(f"data set {name}: needs the folder that holds it.")
    inner = FOLDERS[name]
    place = next((p for p in (folder / "ctr" / inner, folder / inner) if p.is_dir()), folder)
    if name == "bank_marketing":
        return bank_marketing.read(place)
    if name == "movielens_100k":
        return movielens.read(place)
    return criteo.read(place, name=name)


def train_click_model(
    dataset: str | ClickLog,
    out: Path,
    *,
    data: Path | None = None,
    dim: int = 16,
    bottom: tuple[int, ...] = (64,),
    top: tuple[int, ...] = (64, 32),
    bags: bool = False,
    probability: bool = True,
    plan: TrainingPlan | None = None,
    calibration_rows: int = 512,
    seed: int = 0,
) -> TrainedClickModel:
    """Train a DLRM on a log and write the folder that the module's docstring describes.

    Args:
        dataset: One of `DATASETS`, or a log of one's own.
        out: Folder to write into; made if needed.
        data: Where the data set lies; see `read_dataset`.
        calibration_rows: How many training rows calibrate; rows that encode like a test row are left out.

    Raises:
        BadInput: As `read_dataset`; or the log has no row in one of its parts.
    """
    torch = require("torch", extra="run-executorch")
    log = read_dataset(dataset, data, seed=seed) if isinstance(dataset, str) else dataset
    spec = fit_features(log)
    training, validation, test = (_encoded(spec, part) for part in (log.train, log.validation, log.test))
    config = dlrm.DlrmConfig(
        dense_features=len(spec.dense),
        table_rows=spec.table_rows,
        dim=dim,
        bottom=bottom,
        top=top,
        bags=bags,
        probability=probability,
        seed=seed,
    )
    module = dlrm.build(config)
    result = train(module, training, validation, plan if plan is not None else TrainingPlan(seed=seed))
    scores = score(module, test)
    name = f"dlrm_{log.name}"
    trained = TrainedClickModel(
        dataset=log.name,
        source=f"{name}:{name}",
        inputs=(
            TensorInfo(name=spec.dense_input, shape=(1, len(spec.dense)), dtype="float32"),
            TensorInfo(name=spec.ids_input, shape=(1, len(spec.table_rows)), dtype="int64", id_bounds=spec.table_rows),
        ),
        train_rows=len(training.labels),
        test_rows=len(test.labels),
        table_rows=spec.table_rows,
        dense_features=len(spec.dense),
        dim=dim,
        validation_auc=result.validation_auc,
        test_auc=auc(test.labels, scores),
    )
    out.mkdir(parents=True, exist_ok=True)
    torch.save(module.state_dict(), out / "weights.pt")
    write_json(config, out / "config.json")
    (out / f"{name}.py").write_text(FACTORY.format(module=name), encoding="utf-8")
    write_features(dataclasses.replace(spec, golden=_golden(module, log.test, test)), out)
    _write_calibration(out / "calibration.npz", training, test, calibration_rows, seed)
    np.savez(out / "eval.npz", dense=test.dense, sparse=test.sparse, y=test.labels)
    write_json(trained, out / "training.json")
    return trained


def _generated(seed: int) -> ClickLog:
    with tempfile.TemporaryDirectory(prefix="edge-deploy-log-") as folder:
        path = Path(folder, "log.tsv")
        write_log(path, rows=GENERATED_ROWS, log=GeneratedLog(seed=seed))
        return criteo.read(path, name="criteo_generated")


def _encoded(spec: FeatureSpec, part: Part) -> EncodedPart:
    dense, sparse = encode_rows(spec, part.rows)
    return EncodedPart(dense=dense, sparse=sparse, labels=part.labels)


def _golden(module: torch.nn.Module, part: Part, encoded: EncodedPart) -> tuple[GoldenRow, ...]:
    first = EncodedPart(
        dense=encoded.dense[:GOLDEN_ROWS], sparse=encoded.sparse[:GOLDEN_ROWS], labels=encoded.labels[:GOLDEN_ROWS]
    )
    scores = score(module, first)[:, 0]
    return tuple(
        GoldenRow(raw=raw, dense=tuple(dense.tolist()), ids=tuple(ids.tolist()), score=float(value))
        for raw, dense, ids, value in zip(part.rows, first.dense, first.sparse, scores, strict=False)
    )


def _write_calibration(path: Path, training: EncodedPart, test: EncodedPart, rows: int, seed: int) -> None:
    # Different raw rows can encode alike (unseen values), and a calibration sample must not also be an evaluation one.
    tested = {_digest(test, index) for index in range(len(test.labels))}
    order = np.random.default_rng(seed).permutation(len(training.labels)).tolist()
    chosen: list[int] = []
    for index in order:
        if len(chosen) == rows:
            break
        if _digest(training, index) not in tested:
            chosen.append(index)
    np.savez(path, dense=training.dense[chosen], sparse=training.sparse[chosen])


def _digest(part: EncodedPart, index: int) -> str:
    return sample_sha256({"dense": part.dense[index], "sparse": part.sparse[index]})
