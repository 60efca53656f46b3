"""Click logs of any length, read in pieces: fitted in one pass, encoded into arrays on disk in a second.

Nothing of the log is held but vocabularies and one piece of rows.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import (
    MAX_PROBLEMS,
    Categorical,
    Dense,
    FeatureSpec,
    HashedIds,
    Row,
    RowEncoder,
    Vocabulary,
)
from edge_deploy.zoo.click_schema import CategoricalColumn, ClickSchema
from edge_deploy.zoo.clicks import read_lines

__all__ = ["EncodedLog", "Piece", "SPLIT", "encode_log", "fit_stream", "open_encoded", "pieces", "split_of"]

PIECE_ROWS = 1 << 15
SPLIT = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some consecutive rows.

    Attributes:
        first_row: Number of the first row in the file, from 1, without the header.
        rows: Values of the schema's `used` columns.
        labels: float32 [rows], 0 or 1.
        parts: uint8 [rows]: 0 trains, 1 validates, 2 tests.
    """

    first_row: int
    rows: list[tuple[str, ...]]
    labels: np.ndarray
    parts: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedLog:
    """The three parts of a log as arrays mapped from disk, by the names of `SPLIT`."""

    dense: dict[str, np.ndarray]
    ids: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]


def split_of(line: Sequence[str], *, validation: float = 0.1, test: float = 0.1) -> int:
    """The part of `SPLIT` that a row belongs to, by its sha256: equal rows stay together, in any order of the log."""
    digest = hashlib.sha256("\t".join(line).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return 0 if place < 1 - validation - test else 1 if place < 1 - test else 2


def pieces(path: Path, schema: ClickSchema, *, part: int | None = None) -> Iterator[Piece]:
    """The rows of a file, plain or gzip-compressed.

    Args:
        part: All rows belong to this part of `SPLIT`; None divides them 80/10/10 by `split_of`.

    Raises:
        BadInput: The file is missing, empty, cut short or no text; lacks a column; or lines have another number of
            fields or a label that the schema does not name. Up to 20 lines are named at once.
    """
    lines = read_lines(path)
    reader = (
        csv.reader(lines, delimiter=schema.separator, strict=True)
        if schema.quoted
        else csv.reader(lines, delimiter=schema.separator, quoting=csv.QUOTE_NONE)
    )
    try:
        columns = tuple(next(reader, ())) if schema.header else schema.fields
        chosen = _places(path, schema, columns)
        yield from _read(path, schema, reader, columns, chosen, part)
    except csv.Error as error:
        raise BadInput(f"{path}: line {reader.line_num}: is no line of separated values ({error}).") from error


def _places(path: Path, schema: ClickSchema, columns: tuple[str, ...]) -> list[int]:
    if not columns:
        raise BadInput(f"{path}: is empty; must begin with a line that names its columns.")
    where = {name: index for index, name in enumerate(columns)}
    missing = [name for name in (schema.label, *schema.used) if name not in where]
    if missing:
        raise BadInput(f"{path}: has no column {', '.join(missing)}; its columns: {', '.join(columns[:40])}.")
    return [where[name] for name in schema.used]


def _read(
    path: Path,
    schema: ClickSchema,
    reader: Iterator[list[str]],
    columns: Sequence[str],
    chosen: list[int],
    part: int | None,
) -> Iterator[Piece]:
    label_of = dict.fromkeys(schema.negative, 0.0) | dict.fromkeys(schema.positive, 1.0)
    at_label, width = list(columns).index(schema.label), len(columns)
    wanted = " or ".join([*schema.negative, *schema.positive])
    problems: list[str] = []
    rows: list[tuple[str, ...]] = []
    labels: list[float] = []
    parts: list[int] = []
    count = 0
    for row in reader:
        if not row:
            continue
        line = reader.line_num  # type: ignore[attr-defined]  # of a csv.reader
        if len(row) != width:
            problems.append(f"{path}: line {line}: {len(row)} fields: must be {width}.")
        elif row[at_label] not in label_of:
            problems.append(f"{path}: line {line}: label {row[at_label]!r}: must be {wanted}.")
        else:
            rows.append(tuple([row[place] for place in chosen]))
            labels.append(label_of[row[at_label]])
            parts.append(split_of(row) if part is None else part)
        if len(problems) == MAX_PROBLEMS:
            break
        if len(rows) == PIECE_ROWS and not problems:
            yield _piece(count, rows, labels, parts)
            count += len(rows)
            rows, labels, parts = [], [], []
    if problems:
        raise BadInput(*problems)
    if rows:
        yield _piece(count, rows, labels, parts)
    elif not count:
        raise BadInput(f"{path}: holds no row.")


def _piece(count: int, rows: list[tuple[str, ...]], labels: list[float], parts: list[int]) -> Piece:
    return Piece(
        first_row=count + 1, rows=rows, labels=np.asarray(labels, np.float32), parts=np.asarray(parts, np.uint8)
    )


def fit_stream(
    files: Sequence[tuple[Path, int | None]], schema: ClickSchema
) -> tuple[FeatureSpec, tuple[int, int, int]]:
    """One pass: means, deviations and vocabularies of the training rows, and the number of rows of each part.

    Args:
        files: Each with the part that it is, or None where its rows are divided.

    Raises:
        BadInput: As `pieces`; a dense value of a training row is no number; there is no training row.
    """
    fields = schema.used
    raw = tuple(Dense(field=c.field, transform=c.transform, missing=c.missing) for c in schema.dense)
    numbers = RowEncoder(FeatureSpec(fields=fields, dense=raw, categorical=()))
    places = [fields.index(column.field) for column in schema.categorical]
    learned = [(i, place) for i, (c, place) in enumerate(zip(schema.categorical, places, strict=True)) if _learns(c)]
    counts: list[Counter[str]] = [Counter() for _ in schema.categorical]
    sizes = np.zeros(3, np.int64)
    total, squares = np.zeros(len(raw)), np.zeros(len(raw))
    for path, part in files:
        for piece in pieces(path, schema, part=part):
            sizes += np.bincount(piece.parts, minlength=3)
            trains = piece.parts == 0
            dense = _encoded(numbers, path, piece.first_row, piece.rows)[0][trains].astype(np.float64)
            rows = [row for row, own in zip(piece.rows, trains.tolist(), strict=True) if own]
            total += dense.sum(axis=0)
            squares += np.square(dense).sum(axis=0)
            for index, place in learned:
                counts[index].update([row[place] for row in rows])
    if not sizes[0]:
        raise BadInput(f"{files[0][0]}: no row is left to train on.")
    means = total / sizes[0]
    deviations = np.sqrt(np.maximum(squares / sizes[0] - np.square(means), 0.0))
    dense_features = tuple(
        Dense(
            field=column.field,
            transform=column.transform,
            missing=column.missing,
            mean=float(means[index]) if column.standardize and deviations[index] > 1e-9 else 0.0,
            std=float(deviations[index]) if column.standardize and deviations[index] > 1e-9 else 1.0,
        )
        for index, column in enumerate(schema.dense)
    )
    categorical = tuple(_categorical(column, counts[index]) for index, column in enumerate(schema.categorical))
    spec = FeatureSpec(fields=fields, dense=dense_features, categorical=categorical)
    return spec, (int(sizes[0]), int(sizes[1]), int(sizes[2]))


def encode_log(
    files: Sequence[tuple[Path, int | None]],
    schema: ClickSchema,
    spec: FeatureSpec,
    sizes: tuple[int, int, int],
    folder: Path,
) -> EncodedLog:
    """A second pass: every row encoded into `.npy` files in `folder`, as they are mapped afterwards.

    Raises:
        BadInput: A value cannot be encoded (file, row and column are named), or the files have changed meanwhile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder = RowEncoder(spec)
    shapes = {"dense": (len(spec.dense), np.float32), "ids": (len(spec.categorical), np.int32)}
    made: dict[str, list[np.ndarray]] = {"dense": [], "ids": [], "labels": []}
    for name, size in zip(SPLIT, sizes, strict=True):
        for kind, (width, dtype) in shapes.items():
            made[kind].append(_created(folder / f"{name}-{kind}.npy", (size, width), dtype))
        made["labels"].append(_created(folder / f"{name}-labels.npy", (size,), np.float32))
    at = [0, 0, 0]
    for path, part in files:
        for piece in pieces(path, schema, part=part):
            dense, ids = _encoded(encoder, path, piece.first_row, piece.rows)
            for number in range(3):
                chosen = piece.parts == number
                stop = at[number] + int(chosen.sum())
                if stop > sizes[number]:
                    raise BadInput(f"{path}: has more rows than a moment ago; do not write to it while it is read.")
                made["dense"][number][at[number] : stop] = dense[chosen]
                made["ids"][number][at[number] : stop] = ids[chosen]
                made["labels"][number][at[number] : stop] = piece.labels[chosen]
                at[number] = stop
    if tuple(at) != tuple(sizes):
        raise BadInput(f"{files[0][0]}: has fewer rows than a moment ago; do not write to it while it is read.")
    return open_encoded(folder)


def open_encoded(folder: Path) -> EncodedLog:
    """What `encode_log` left in a folder.

    Raises:
        BadInput: A file is missing or damaged.
    """

    def mapped(kind: str) -> dict[str, np.ndarray]:
        try:
            return {name: _opened(folder / f"{name}-{kind}.npy") for name in SPLIT}
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder}: cannot be read ({error}); delete it to encode the log again.") from error

    return EncodedLog(dense=mapped("dense"), ids=mapped("ids"), labels=mapped("labels"))


def _opened(path: Path) -> np.ndarray:
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _created(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    if not all(shape):  # an empty file cannot be mapped
        np.save(path, np.empty(shape, dtype))
        return np.empty(shape, dtype)
    created: np.ndarray = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    return created


def _encoded(encoder: RowEncoder, path: Path, first_row: int, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    try:
        return encoder(rows, first_row=first_row)
    except BadInput as error:
        raise BadInput(*(f"{path}: {problem}" for problem in error.problems)) from error


def _learns(column: CategoricalColumn) -> bool:
    return column.modulus is None and column.rows is None


def _categorical(column: CategoricalColumn, counts: Counter[str]) -> Categorical:
    if column.rows is not None:
        return Categorical(field=column.field, rows=column.rows, direct=True)
    if column.modulus is not None:
        hashed = HashedIds(modulus=column.modulus, algorithm=column.algorithm, seed=column.seed)
        return Categorical(field=column.field, rows=hashed.first_id + hashed.modulus, hashed=hashed)
    counts.pop("", None)
    kept = [value for value, count in counts.items() if count >= column.min_count]
    # Frequent values first: hot rows of the table lie together, and the order does not depend on that of the log.
    kept.sort(key=lambda value: (-counts[value], value))
    vocabulary = Vocabulary(values=tuple(kept))
    return Categorical(field=column.field, rows=vocabulary.first_id + len(kept), vocabulary=vocabulary)
