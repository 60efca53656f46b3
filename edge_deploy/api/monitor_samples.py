"""Fresh samples for `monitor`: data sets as they are, click logs through the artifact's features.json."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from converters.contracts import Captured
from converters.samples import save_arrays, spool
from edge_deploy.core.dataset import check_samples
from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import FEATURES_FILE, FeatureSpec, RowEncoder, read_features
from edge_deploy.zoo.click_schema import ClickSchema
from edge_deploy.zoo.click_stream import pieces
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description

__all__ = ["features_of", "spool_samples", "unseen_shares"]


def features_of(folder: Path) -> FeatureSpec | None:
    """The artifact's features.json; None where it has none."""
    return read_features(folder) if (folder / FEATURES_FILE).is_file() else None


def spool_samples(
    data: Path, captured: Captured, features: FeatureSpec | None, schema: ClickSchema | None, limit: int, feeds: Path
) -> np.ndarray:
    """Write one array [samples, ...] for each source input into `feeds`, and return the labels, NaN without.

    Raises:
        BadInput: Nothing there, rows that are no rows of the log, or samples that do not fit the model.
    """
    if schema is not None:
        return _spool_log(data, captured, features, schema, limit, feeds)
    dataset = open_dataset(find_description(data), inputs=captured.inputs, limit=limit)
    check_samples(dataset, captured.inputs)
    return spool(dataset, len(dataset), captured.inputs, feeds)


def _spool_log(
    path: Path, captured: Captured, features: FeatureSpec | None, schema: ClickSchema, limit: int, feeds: Path
) -> np.ndarray:
    if features is None or not set(features.fields) & set(schema.used):
        raise BadInput(
            f"{path}: is a log of raw rows, and the artifact's {FEATURES_FILE} does not tell how columns become ids; "
            "convert with --features, or give encoded samples as .npz."
        )
    missing = [name for name in features.fields if name not in schema.used]
    if missing:
        raise BadInput(f"{path}: the schema has no column {', '.join(missing)}, which {FEATURES_FILE} reads.")
    order = [schema.used.index(name) for name in features.fields]
    encoder = RowEncoder(features)
    dense, ids, labels, count = [], [], [], 0
    for piece in pieces(path, schema, part=0):
        rows = [[row[place] for place in order] for row in islice(piece.rows, limit - count)]
        try:
            numbers, found = encoder(rows, first_row=piece.first_row)
        except BadInput as error:
            raise BadInput(*(f"{path}: {problem}" for problem in error.problems)) from error
        dense.append(numbers)
        ids.append(found)
        labels.append(piece.labels[: len(rows)])
        count += len(rows)
        if count >= limit:
            break
    arrays = {features.dense_input: np.concatenate(dense), features.ids_input: np.concatenate(ids)}
    wanted = {info.name: arrays[info.name].astype(info.dtype) for info in captured.inputs}
    save_arrays(wanted, feeds)
    return np.concatenate(labels).astype(np.float64)


def unseen_shares(features: FeatureSpec, feeds: Path) -> dict[str, float]:
    """By feature with a vocabulary: the share of samples whose value it does not know."""
    with np.load(feeds, allow_pickle=False) as archive:
        if features.ids_input not in archive.files:
            return {}
        ids = archive[features.ids_input]
    return {
        feature.field: float((ids[:, at] == feature.unseen_id).mean())
        for at, feature in enumerate(features.categorical)
        if feature.vocabulary is not None
    }
