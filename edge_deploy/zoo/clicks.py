"""Click logs: raw rows with labels in three parts, and the wish how their fields become features.

A reader (`bank_marketing`, `movielens`, `criteo`) makes a `ClickLog`; `fit_features` learns means, deviations and
vocabularies from its training part alone.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import Categorical, Dense, FeatureSpec, HashedIds, Transform, Vocabulary, encode_rows

__all__ = [
    "CategoricalWish",
    "ClickLog",
    "DenseWish",
    "Part",
    "fit_features",
    "part_of",
    "read_lines",
    "split_by_sha256",
]

FIT_ROWS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseWish:
    """A field that becomes a dense value.

    Attributes:
        standardize: Subtract the training mean and divide by the deviation, after the transform.
    """

    field: str
    transform: Transform = "identity"
    standardize: bool = True
    missing: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalWish:
    """A field that becomes an id.

    Attributes:
        modulus: Hash values into so many ids; None learns a vocabulary.
        min_count: Values seen less often in training do not enter the vocabulary.
    """

    field: str
    modulus: int | None = None
    algorithm: Literal["blake2b-64", "hex-integer"] = "blake2b-64"
    seed: int = 0
    min_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Raw rows and their labels, 0 or 1 as float32 [rows]."""

    rows: tuple[tuple[str, ...], ...]
    labels: np.ndarray

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.labels):
            raise BadInput(f"click log: {len(self.rows)} rows, {len(self.labels)} labels.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickLog:
    """A labelled log in three parts that share no row."""

    name: str
    fields: tuple[str, ...]
    dense: tuple[DenseWish, ...]
    categorical: tuple[CategoricalWish, ...]
    train: Part
    validation: Part
    test: Part


def part_of(rows: Iterable[tuple[str, ...]], labels: Iterable[float]) -> Part:
    """A `Part` of any rows and labels."""
    return Part(rows=tuple(rows), labels=np.asarray(list(labels), np.float32))


def read_lines(path: Path, *, encoding: str = "utf-8") -> Iterator[str]:
    """Lines of a text file, gzip-compressed where its name ends in `.gz`, without their line ends.

    Raises:
        BadInput: The file is missing, is not gzip, or is not text of this encoding.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding=encoding, newline="\n") as file:
                yield from (line.rstrip("\r\n") for line in file)
        else:
            with path.open(encoding=encoding, newline="\n") as file:
                yield from (line.rstrip("\r\n") for line in file)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error


def split_by_sha256(lines: Sequence[str], *shares: float) -> list[list[int]]:
    """Indices of the lines in the order of their sha256, cut after the cumulated shares; the last part is the rest.

    `split_by_sha256(lines, 0.8, 0.1)` gives 80 %, 10 % and 10 %: the same for every reader of the same lines. Equal
    lines stay together.
    """
    digests = [hashlib.sha256(line.encode()).digest() for line in lines]
    order = sorted(range(len(lines)), key=digests.__getitem__)
    parts, start, total = [], 0, 0.0
    for share in shares:
        total += share
        end = max(start, round(total * len(lines)))
        while 0 < end < len(order) and digests[order[end]] == digests[order[end - 1]]:
            end += 1
        parts.append(order[start:end])
        start = end
    return [*parts, order[start:]]


def fit_features(log: ClickLog) -> FeatureSpec:
    """The description of the log's features, learned from its training part.

    Raises:
        BadInput: A wish names an unknown field, or a dense value cannot be read; names row and feature.
    """
    column = {name: index for index, name in enumerate(log.fields)}
    unknown = {wish.field for wish in log.dense} | {wish.field for wish in log.categorical}
    if unknown - set(column):
        raise BadInput(f"{log.name}: no field {', '.join(sorted(unknown - set(column)))}; known: {log.fields}.")
    raw = tuple(Dense(field=wish.field, transform=wish.transform, missing=wish.missing) for wish in log.dense)
    values, _ = encode_rows(FeatureSpec(fields=log.fields, dense=raw, categorical=()), log.train.rows[:FIT_ROWS])
    means = values.astype(np.float64).mean(axis=0) if len(values) else np.zeros(len(raw))
    deviations = values.astype(np.float64).std(axis=0) if len(values) else np.ones(len(raw))
    dense = []
    for index, wish in enumerate(log.dense):
        scaled = wish.standardize and deviations[index] > 1e-9
        dense.append(
            Dense(
                field=wish.field,
                transform=wish.transform,
                missing=wish.missing,
                mean=float(means[index]) if scaled else 0.0,
                std=float(deviations[index]) if scaled else 1.0,
            )
        )
    categorical = tuple(_categorical(wish, column[wish.field], log.train.rows) for wish in log.categorical)
    return FeatureSpec(fields=log.fields, dense=tuple(dense), categorical=categorical)


def _categorical(wish: CategoricalWish, column: int, rows: Sequence[tuple[str, ...]]) -> Categorical:
    if wish.modulus is not None:
        hashed = HashedIds(modulus=wish.modulus, algorithm=wish.algorithm, seed=wish.seed)
        return Categorical(field=wish.field, rows=hashed.first_id + hashed.modulus, hashed=hashed)
    counts = Counter(row[column] for row in rows)
    del counts[""]
    # Frequent values first: hot rows of the table lie together, and the order does not depend on that of the log.
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    values = tuple(value for value in ordered if counts[value] >= wish.min_count)
    vocabulary = Vocabulary(values=values)
    return Categorical(field=wish.field, rows=vocabulary.first_id + len(values), vocabulary=vocabulary)
