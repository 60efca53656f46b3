"""MovieLens 100k (Harper and Konstan, 2015): ratings as clicks, label 1 where a user gave at least four stars."""

from __future__ import annotations

from pathlib import Path

from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.clicks import CategoricalWish, ClickLog, DenseWish, Part, part_of, read_lines, split_by_sha256

__all__ = ["FIELDS", "GENRES", "read"]

GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
FIELDS = ("user", "item", "age", "gender", "occupation", "region", "year", *GENRES)
LIKED = 4
_DENSE = (
    DenseWish(field="age", missing=30.0),
    DenseWish(field="year", missing=1995.0),
    *(DenseWish(field=genre, standardize=False) for genre in GENRES),
)
_CATEGORICAL = tuple(
    CategoricalWish(field=name) for name in ("user", "item", "gender", "occupation", "region", "year", "age")
)


def read(folder: Path) -> ClickLog:
    """The published split: `ua.test` tests; of `ua.base`, the 10 % last by the sha256 of the line validate.

    Args:
        folder: Holds `u.user`, `u.item`, `ua.base` and `ua.test`, each plain or gzip-compressed.

    Raises:
        BadInput: A file is missing, or a line has another number of fields or names an unknown user or film.
    """
    users = {row[0]: _user(row) for row in _table(folder, "u.user", "|", 5)}
    items = {row[0]: _item(row) for row in _table(folder, "u.item", "|", 5 + len(GENRES))}

    def part(ratings: list[list[str]]) -> Part:
        unknown = [row for row in ratings if row[0] not in users or row[1] not in items]
        if unknown:
            raise BadInput(f"{folder}: rating of user {unknown[0][0]}, film {unknown[0][1]}: one of them is unknown.")
        rows = ((row[0], row[1], *users[row[0]], *items[row[1]]) for row in ratings)
        return part_of(rows, (float(int(row[2]) >= LIKED) for row in ratings))

    base = _table(folder, "ua.base", "\t", 4)
    train, validation = split_by_sha256(["\t".join(row) for row in base], 0.9)
    return ClickLog(
        name="movielens_100k",
        fields=FIELDS,
        dense=_DENSE,
        categorical=_CATEGORICAL,
        train=part([base[i] for i in train]),
        validation=part([base[i] for i in validation]),
        test=part(_table(folder, "ua.test", "\t", 4)),
    )


def _user(row: list[str]) -> tuple[str, ...]:
    _, age, gender, occupation, postcode = row
    return age, gender, occupation, postcode[:2]


def _item(row: list[str]) -> tuple[str, ...]:
    year = row[2].rpartition("-")[2]
    return (year, *row[5:])


def _table(folder: Path, name: str, separator: str, fields: int) -> list[list[str]]:
    path = next((folder / f for f in (name, f"{name}.gz") if (folder / f).exists()), folder / name)
    rows = [line.split(separator) for line in read_lines(path, encoding="latin-1") if line]
    for number, row in enumerate(rows, start=1):
        if len(row) != fields:
            raise BadInput(f"{path}: line {number}: {len(row)} fields: must be {fields}.")
    return rows
