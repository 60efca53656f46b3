"""Labels of items from a csv or a text of numbers, matched by file name or by order."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.description import Labels, resolve

__all__ = ["find_labels"]


def find_labels(labels: Labels, folder: Path, names: Sequence[str]) -> list[float]:
    """One label for each item, in the order of `names`.

    Raises:
        BadInput: The file is missing or not as described, an item has no label, or there are too few.
    """
    path = resolve(labels.path, folder)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error
    if labels.format == "numbers":
        numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
        return _in_order(path, labels, numbers, len(names))
    rows = [row for row in csv.reader(text.splitlines(), delimiter=labels.delimiter) if row]
    header = rows.pop(0) if labels.header and rows else []
    value_column = _column(path, header, labels.label, "label")
    if labels.key is None:
        values = [_value(path, labels, row, value_column, line) for line, row in enumerate(rows, 1 + bool(header))]
        return _in_order(path, labels, values, len(names))
    key_column = _column(path, header, labels.key, "key")
    known = {}
    for line, row in enumerate(rows, 1 + bool(header)):
        if len(row) <= key_column:
            raise BadInput(f"{path}: line {line} has {len(row)} columns, the key is column {key_column}.")
        known[row[key_column].strip()] = _value(path, labels, row, value_column, line)
    missing = [name for name in names if name not in known and PurePosixPath(name).name not in known]
    if missing:
        raise BadInput(
            f"{path}: {len(missing)} of {len(names)} items have no label, e.g. {missing[0]}; "
            f"its column {labels.key} holds e.g. {next(iter(known), 'nothing')}."
        )
    return [known[name] if name in known else known[PurePosixPath(name).name] for name in names]


def _column(path: Path, header: Sequence[str], wanted: str | int, what: str) -> int:
    if isinstance(wanted, int):
        return wanted
    names = [name.strip() for name in header]
    if wanted not in names:
        raise BadInput(f"{path}: labels.{what} = {wanted!r}: no such column; it has {', '.join(names) or 'none'}.")
    return names.index(wanted)


def _value(path: Path, labels: Labels, row: Sequence[str], column: int, line: int) -> float:
    if len(row) <= column:
        raise BadInput(f"{path}: line {line} has {len(row)} columns, the label is column {column}.")
    text = row[column].strip()
    if labels.classes:
        if text not in labels.classes:
            raise BadInput(f"{path}: line {line}: {text!r} is not among the classes of the description.")
        return float(labels.classes.index(text))
    try:
        return float(text)
    except ValueError as error:
        raise BadInput(
            f"{path}: line {line}: label {text!r}: must be a number, or listed in labels.classes."
        ) from error


def _in_order(path: Path, labels: Labels, values: list[float], count: int) -> list[float]:
    taken = values[labels.offset : labels.offset + count]
    exact = labels.format == "numbers" or labels.offset > 0
    if len(taken) < count or (not exact and len(values) != count):
        raise BadInput(
            f"{path}: {max(len(values) - labels.offset, 0)} labels for {count} items; "
            "give labels.key, the column with file names, if they are not in the same order."
        )
    return taken
