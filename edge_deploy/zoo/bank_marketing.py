"""The UCI Bank Marketing log (Moro, Cortez and Rita, 2014): telephone calls, and whether a deposit was made."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.clicks import CategoricalWish, ClickLog, DenseWish, Part, part_of, read_lines, split_by_sha256

__all__ = ["FIELDS", "read"]

FIELDS = (
    "age",
    "job",
    "marital",
    "education",
    "default",
    "balance",
    "housing",
    "loan",
    "contact",
    "day",
    "month",
    "duration",
    "campaign",
    "pdays",
    "previous",
    "poutcome",
)
_DENSE = (
    DenseWish(field="age"),
    DenseWish(field="balance", transform="signed-log1p"),
    DenseWish(field="day"),
    DenseWish(field="duration", transform="log1p"),
    DenseWish(field="campaign", transform="log1p"),
    DenseWish(field="pdays", transform="log1p"),
    DenseWish(field="previous", transform="log1p"),
)
# The day of the month enters twice: as a number and as an id, because campaigns ran on certain days.
_CATEGORICAL = tuple(
    CategoricalWish(field=name)
    for name in (
        "job",
        "marital",
        "education",
        "default",
        "housing",
        "loan",
        "contact",
        "month",
        "poutcome",
        "day",
        "age",
    )
)
_LABELS = {"yes": 1.0, "no": 0.0}


def read(path: Path) -> ClickLog:
    """The log of a `bank-full.csv` (or `.csv.gz`) without header, split 80/10/10 by the sha256 of its rows.

    Args:
        path: The file, or the folder that holds `bank-full.csv.gz` or `bank-full.csv`.

    Raises:
        BadInput: The file is missing, or a row has another number of fields or another label than yes or no.
    """
    if path.is_dir():
        path = next((path / name for name in ("bank-full.csv.gz", "bank-full.csv") if (path / name).exists()), path)
    lines = [line for line in read_lines(path) if line]
    rows = []
    problems = []
    for number, line in enumerate(lines, start=1):
        row = tuple(line.split(","))
        if len(row) != len(FIELDS) + 1:
            problems.append(f"{path}: line {number}: {len(row)} fields: must be {len(FIELDS) + 1}, comma separated.")
        elif row[-1] not in _LABELS:
            problems.append(f"{path}: line {number}: label {row[-1]!r}: must be yes or no.")
        rows.append(row)
    if problems:
        raise BadInput(*problems[:20])
    train, validation, test = split_by_sha256(lines, 0.8, 0.1)

    def part(indices: list[int]) -> Part:
        return part_of((rows[i][:-1] for i in indices), (_LABELS[rows[i][-1]] for i in indices))

    return ClickLog(
        name="bank_marketing",
        fields=FIELDS,
        dense=_DENSE,
        categorical=_CATEGORICAL,
        train=part(train),
        validation=part(validation),
        test=part(test),
    )
