"""What the columns of a click log mean: a small TOML file for logs of any kind, or Criteo's own layout.

```toml
label = "clicked"            # the column that says whether it happened
positive = ["yes", "1"]      # its values that mean so; without these two lines labels must be 0 or 1
negative = ["no", "0"]
separator = ","              # or "\\t"
header = true                # the first line names the columns; else: fields = ["clicked", "age", ...]

[[dense]]
field = "age"
transform = "log1p"          # or "signed-log1p", "identity" (default)
missing = 0.0                # stands in for empty values, before the transform
standardize = true           # subtract the mean, divide by the deviation

[[categorical]]
field = "job"
min_count = 2                # rarer values count as unseen

[[categorical]]
field = "site"
modulus = 10000              # hash into so many ids instead of learning a vocabulary
algorithm = "blake2b-64"     # or "hex-integer"

[[categorical]]
field = "day"
rows = 32                    # the value is the id itself; larger ones are refused
```
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_deploy.core.errors import BadInput
from edge_deploy.core.features import Transform
from edge_deploy.core.serde import from_json
from edge_deploy.zoo import criteo

__all__ = ["CategoricalColumn", "ClickSchema", "DenseColumn", "criteo_schema", "read_schema"]

LABEL = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseColumn:
    """A column that becomes a dense value; see the module's docstring."""

    field: str
    transform: Transform = "identity"
    missing: float = 0.0
    standardize: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoricalColumn:
    """A column that becomes an id: by vocabulary, by hash (`modulus`), or as it is (`rows`)."""

    field: str
    min_count: int = 1
    modulus: int | None = None
    algorithm: Literal["blake2b-64", "hex-integer"] = "blake2b-64"
    seed: int = 0
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.modulus is not None and self.rows is not None:
            raise BadInput(f"column {self.field}: give modulus (hash) or rows (ids as they are), not both.")
        for name in ("modulus", "rows", "min_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"column {self.field}: {name} = {value}: must be at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickSchema:
    """How the rows of a log are read.

    Attributes:
        fields: Names of all columns in order; empty when the file's first line names them (`header`).
        positive, negative: Values of the label column; "1" and "0" alone are the default.
    """

    label: str
    positive: tuple[str, ...] = ("1",)
    negative: tuple[str, ...] = ("0",)
    separator: str = ","
    header: bool = True
    quoted: bool = True
    fields: tuple[str, ...] = ()
    dense: tuple[DenseColumn, ...] = ()
    categorical: tuple[CategoricalColumn, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if not self.categorical:
            problems.append("schema: has no [[categorical]] column; a recommender needs at least one.")
        if not self.dense:
            problems.append("schema: has no [[dense]] column; a DLRM needs at least one.")
        if len(self.separator) != 1:
            problems.append(f"schema: separator = {self.separator!r}: must be a single character.")
        if self.header == bool(self.fields):
            problems.append("schema: give either header = true or fields = [...].")
        both = sorted(set(self.positive) & set(self.negative))
        if both or not self.positive or not self.negative:
            problems.append(f"schema: label values {both or '(none)'}: positive and negative must each name their own.")
        known = set(self.fields)
        used = [self.label, *(c.field for c in self.dense), *(c.field for c in self.categorical)]
        if self.fields:
            problems += [f"schema: column {name}: not among fields." for name in used if name not in known]
        if self.label in used[1:]:
            problems.append(f"schema: column {self.label}: is the label, and cannot be a feature as well.")
        if problems:
            raise BadInput(*problems)

    @property
    def used(self) -> tuple[str, ...]:
        """The feature columns, each once, in the order of the schema."""
        return tuple(dict.fromkeys([*(c.field for c in self.dense), *(c.field for c in self.categorical)]))


def criteo_schema(*, modulus: int | None = None, min_count: int = 2) -> ClickSchema:
    """Criteo's layout: log(1 + count), and 26 columns of hexadecimal values.

    Args:
        modulus: Take values modulo this size; None learns vocabularies.
        min_count: Values seen less often in training count as unseen.
    """
    return ClickSchema(
        label=LABEL,
        separator="\t",
        header=False,
        quoted=False,
        fields=(LABEL, *criteo.FIELDS),
        dense=tuple(DenseColumn(field=field, transform="log1p") for field in criteo.INTEGERS),
        categorical=tuple(
            CategoricalColumn(
                field=field,
                modulus=modulus,
                algorithm="hex-integer",
                min_count=min_count if modulus is None else 1,
            )
            for field in criteo.CATEGORICAL
        ),
    )


def read_schema(path: Path) -> ClickSchema:
    """The schema in a TOML file.

    Raises:
        BadInput: Not TOML, unknown keys (close names are suggested), or values that contradict each other.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is not TOML ({error}).") from error
    if "fields" in data:
        data.setdefault("header", False)
    try:
        return from_json(ClickSchema, data, where=path.name)
    except BadInput as error:
        raise BadInput(*(p if p.startswith(path.name) else f"{path.name}: {p}" for p in error.problems)) from error
