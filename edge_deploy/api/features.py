"""features.json of a recommender's artifacts: the user's description checked against the model, or the bare ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.capture import run_float
from converters.contracts import Captured
from converters.samples import save_arrays
from edge_deploy.core.artifact import FileEntry
from edge_deploy.core.child import Child
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import (
    FEATURES_FILE,
    Categorical,
    Dense,
    FeatureSpec,
    GoldenRow,
    encode_rows,
    read_features,
    write_features,
)
from edge_deploy.core.tensor import TensorInfo

__all__ = ["WITHOUT_FEATURES", "describe_features", "write_feature_files"]

GOLDEN_ROWS = 32
SCORE_TOLERANCE = 1e-3
WITHOUT_FEATURES = (
    "features.json takes ids and numbers as they are: no --features was given, so hashes, vocabularies and transforms "
    "of raw rows are unknown"
)


def describe_features(
    captured: Captured, given: Path | None, *, feeds: Path, answers: Path, work: Path, child: Child | None = None
) -> FeatureSpec | None:
    """How raw rows become the inputs of a recommender, with golden rows scored by the float model.

    Args:
        given: The user's features.json; None describes the inputs as they are.
        feeds: npz of samples, whose first rows become golden where nothing was given.
        answers: npz of the float model's answers to them.
        work: Folder for passing files.
        child: A process of `converters.capture.source_child`, to use instead of a fresh one.

    Returns:
        None for models other than recommenders, and where inputs are not one array of numbers and one of ids.

    Raises:
        BadInput: The description belongs to another model.
    """
    if given is not None:
        spec = read_features(given)
        _refuse_other_inputs(spec, captured, given)
        return _rescored(spec, captured, given, work, child)
    if captured.kind != "recommender":
        return None
    dense, ids = _plain_inputs(captured.inputs)
    return _direct(dense, ids, feeds, answers) if ids is not None else None


def _refuse_other_inputs(spec: FeatureSpec, captured: Captured, given: Path) -> None:
    inputs = {info.name: info for info in captured.inputs}
    problems = []
    for name, width in ((spec.dense_input, len(spec.dense)), (spec.ids_input, len(spec.categorical))):
        if not width:
            continue
        if name not in inputs:
            problems.append(f"{given}: input {name!r}: the model has {', '.join(inputs)}.")
        elif inputs[name].shape[1:] != (width,):
            problems.append(f"{given}: {width} features for {name!r}: the model takes {inputs[name].shape[1:]}.")
    bounds = inputs[spec.ids_input].id_bounds if spec.ids_input in inputs else ()
    for feature, rows in zip(spec.categorical, bounds, strict=False):
        if feature.rows > rows:
            problems.append(
                f"{given}: feature {feature.field}: ids up to {feature.rows - 1}; its table has {rows} rows."
            )
    if problems:
        raise BadInput(*problems)


def _rescored(spec: FeatureSpec, captured: Captured, given: Path, work: Path, child: Child | None) -> FeatureSpec:
    """Golden rows with the score of this very model; a contradiction means that the file describes another one."""
    if not spec.golden:
        return spec
    dense, ids = encode_rows(spec, [row.raw for row in spec.golden])
    feeds, answers = work / "golden.npz", work / "golden_answers.npz"
    arrays = {spec.dense_input: dense, spec.ids_input: ids}
    save_arrays({info.name: arrays[info.name] for info in captured.inputs}, feeds)
    run_float(captured, feeds, answers, child=child)
    with np.load(answers, allow_pickle=False) as archive:
        scores = archive[captured.outputs[0].name].reshape(len(ids))
    claimed = np.array([row.score for row in spec.golden])
    worst = int(np.abs(scores - claimed).argmax())
    if abs(scores[worst] - claimed[worst]) > SCORE_TOLERANCE:
        raise BadInput(
            f"{given}: golden row {worst} says {claimed[worst]:.5f}, the model gives {scores[worst]:.5f}: "
            "the description belongs to other weights."
        )
    golden = tuple(replace(row, score=float(score)) for row, score in zip(spec.golden, scores, strict=True))
    return replace(spec, golden=golden)


def _plain_inputs(inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo | None, TensorInfo | None]:
    numbers = [info for info in inputs if info.dtype == "float32" and len(info.shape) == 2]
    ids = [info for info in inputs if info.dtype in ("int32", "int64") and len(info.shape) == 2]
    if len(numbers) > 1 or len(ids) != 1 or len(numbers) + 1 != len(inputs):
        return None, None
    if len(ids[0].id_bounds) not in (1, ids[0].shape[1]):
        return None, None
    return (numbers[0] if numbers else None), ids[0]


def _direct(dense: TensorInfo | None, ids: TensorInfo, feeds: Path, answers: Path) -> FeatureSpec:
    numbers = [f"{dense.name}_{index}" for index in range(dense.shape[1])] if dense is not None else []
    names = [f"{ids.name}_{index}" for index in range(ids.shape[1])]
    bounds = np.broadcast_to(np.asarray(ids.id_bounds), (len(names),))
    with np.load(feeds, allow_pickle=False) as archive:
        dense_rows = archive[dense.name][:GOLDEN_ROWS] if dense is not None else None
        id_rows = archive[ids.name][:GOLDEN_ROWS]
    with np.load(answers, allow_pickle=False) as archive:
        scores = archive[archive.files[0]][:GOLDEN_ROWS].reshape(len(id_rows), -1)[:, 0]
    golden = []
    for index, row in enumerate(id_rows):
        values = () if dense_rows is None else tuple(float(value) for value in dense_rows[index])
        raw = (*(repr(value) for value in values), *(str(int(value)) for value in row))
        golden.append(
            GoldenRow(raw=raw, dense=values, ids=tuple(int(value) for value in row), score=float(scores[index]))
        )
    return FeatureSpec(
        fields=(*numbers, *names),
        dense=tuple(Dense(field=name) for name in numbers),
        categorical=tuple(
            Categorical(field=name, rows=int(rows), direct=True) for name, rows in zip(names, bounds, strict=True)
        ),
        dense_input=dense.name if dense is not None else "",
        ids_input=ids.name,
        golden=tuple(golden),
    )


def write_feature_files(spec: FeatureSpec, folder: Path) -> tuple[FileEntry, ...]:
    """Write features.json and its vocabularies into an artifact's folder, as entries of its manifest."""
    return tuple(
        FileEntry(
            path=path.name,
            role="features" if path.name == FEATURES_FILE else "vocabulary",
            bytes=path.stat().st_size,
            sha256=file_sha256(path),
        )
        for path in write_features(spec, folder)
    )
