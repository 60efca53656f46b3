r"""Logs in the format of the Criteo Kaggle display advertising challenge.

One row a line, tab separated, no header: label (0 or 1), 13 integers (mostly counts), 26 categorical values (32-bit
hashes as 8 hexadecimal digits). Missing values are empty. Such a log is real, or made by `criteo_generator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.clicks import CategoricalWish, ClickLog, DenseWish, Part, part_of, read_lines, split_by_sha256

__all__ = ["CATEGORICAL", "FIELDS", "INTEGERS", "click_log", "read", "read_rows"]

INTEGERS = tuple(f"I{index}" for index in range(1, 14))
CATEGORICAL = tuple(f"C{index}" for index in range(1, 27))
FIELDS = INTEGERS + CATEGORICAL


def read_rows(path: Path) -> Part:
    """Rows and labels of one file, plain or gzip-compressed.

    Raises:
        BadInput: The file is missing, or a line has another number of fields or a label that is not 0 or 1.
    """
    rows, labels, problems = [], [], []
    for number, line in enumerate(read_lines(path), start=1):
        if not line:
            continue
        label, *row = line.split("\t")
        if len(row) != len(FIELDS):
            problems.append(f"{path}: line {number}: {len(row) + 1} fields: must be {len(FIELDS) + 1}, tab separated.")
        elif label not in ("0", "1"):
            problems.append(f"{path}: line {number}: label {label!r}: must be 0 or 1.")
        else:
            rows.append(tuple(row))
            labels.append(float(label))
        if len(problems) == 20:
            break
    if problems:
        raise BadInput(*problems)
    return part_of(rows, labels)


def click_log(
    train: Part,
    validation: Part,
    test: Part,
    *,
    name: str = "criteo",
    modulus: int | None = None,
    min_count: int = 2,
) -> ClickLog:
    """The log with the customary features: log(1 + count), standardized, and one table for each categorical field.

    Args:
        modulus: Read the hexadecimal values modulo this size; None learns vocabularies.
        min_count: Values seen less often in training count as unseen; without meaning with a modulus.
    """
    return ClickLog(
        name=name,
        fields=FIELDS,
        dense=tuple(DenseWish(field=field, transform="log1p") for field in INTEGERS),
        categorical=tuple(
            CategoricalWish(field=field, modulus=modulus, algorithm="hex-integer", min_count=min_count)
            for field in CATEGORICAL
        ),
        train=train,
        validation=validation,
        test=test,
    )


def read(path: Path, *, name: str = "criteo", modulus: int | None = None, min_count: int = 2) -> ClickLog:
    """A log from one file, split 80/10/10 by the sha256 of its rows, or from a folder.

    Args:
        path: A file, or a folder with `train.tsv`, `dev.tsv` and `test.tsv`, each plain or gzip-compressed.

    Raises:
        BadInput: As `read_rows`; or the folder misses a part.
    """
    if path.is_dir():
        parts: Sequence[Part] = [read_rows(_part_file(path, part)) for part in ("train", "dev", "test")]
    else:
        whole = read_rows(path)
        indices = split_by_sha256(["\t".join(row) for row in whole.rows], 0.8, 0.1)
        parts = [part_of((whole.rows[i] for i in part), (whole.labels[i] for i in part)) for part in indices]
    return click_log(*parts, name=name, modulus=modulus, min_count=min_count)


def _part_file(folder: Path, part: str) -> Path:
    for name in (f"{part}.tsv", f"{part}.tsv.gz"):
        if (folder / name).exists():
            return folder / name
    raise BadInput(f"{folder}: holds no {part}.tsv or {part}.tsv.gz.")
