"""Raw rows to model inputs: the content of `features.json`, the same in training, in tests and on a device.

Standard library and NumPy only. A raw row is a sequence of strings, one per field of `FeatureSpec.fields`; an empty
string is a missing value. `golden` rows carry raw strings, encoded values and the score of the float source model, so
that another implementation of the encoding can be held against this one.

Hash algorithms (`HashedIds.algorithm`):

- `blake2b-64`: BLAKE2b (RFC 7693) with an 8-byte digest over the seed (8 bytes, little endian) followed by the value
  in UTF-8; the digest, read as a little-endian unsigned integer, modulo `modulus`.
- `hex-integer`: the value read as a hexadecimal integer, plus the seed, modulo `modulus`: the custom of public Criteo
  preprocessing, whose values are 32-bit hashes already.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import read_json, write_json

__all__ = [
    "Categorical",
    "Dense",
    "FEATURES_FILE",
    "FeatureSpec",
    "GoldenRow",
    "HashedIds",
    "Row",
    "RowEncoder",
    "Vocabulary",
    "encode",
    "encode_rows",
    "golden_problems",
    "read_features",
    "write_features",
]

FEATURES_FILE = "features.json"
INLINE_VOCABULARY = 256
MAX_PROBLEMS = 20
HEX_DIGITS = frozenset(string.hexdigits)
Row: TypeAlias = Sequence[str]
Transform: TypeAlias = Literal["identity", "log1p", "signed-log1p"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """One dense value: (transform(number) - mean) / std, computed in float64 and stored as float32.

    Attributes:
        field: The raw field it is read from.
        transform: "log1p" is log(1 + max(x, 0)); "signed-log1p" is sign(x) log(1 + |x|).
        missing: Number that stands in for an empty field, before the transform.
    """

    field: str
    transform: Transform = "identity"
    missing: float = 0.0
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0 and math.isfinite(self.missing)):
            raise BadInput(f"feature {self.field}: mean, std and missing must be finite, and std above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedIds:
    """id = first_id + hash(value) modulo `modulus`; every value has an id, so none is unseen."""

    modulus: int
    algorithm: Literal["blake2b-64", "hex-integer"] = "blake2b-64"
    seed: int = 0
    first_id: int = 1

    def __post_init__(self) -> None:
        if self.modulus < 1 or self.seed < 0 or self.seed >= 1 << 64 or self.first_id < 0:
            raise BadInput("hashed ids: modulus must be at least 1, seed in [0, 2^64), first_id at least 0.")

    def id_of(self, value: str) -> int:
        """The id of one value.

        Raises:
            ValueError: The algorithm is "hex-integer" and the value is not a hexadecimal integer.
        """
        if self.algorithm == "hex-integer":
            if not HEX_DIGITS.issuperset(value):
                raise ValueError(value)
            return self.first_id + (int(value, 16) + self.seed) % self.modulus
        digest = hashlib.blake2b(self.seed.to_bytes(8, "little") + value.encode(), digest_size=8).digest()
        return self.first_id + int.from_bytes(digest, "little") % self.modulus


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """id = first_id + position of the value; other values get the feature's `unseen_id`.

    Attributes:
        file: Where the values stand on disk, beside `features.json`; empty when they stand inline.
    """

    values: tuple[str, ...] = ()
    first_id: int = 2
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyFile:
    """Content of a vocabulary file."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Categorical:
    """One id, a row of an embedding table: exactly one of `hashed`, `vocabulary` and `direct` is given.

    Attributes:
        rows: Rows of the table.
        direct: The raw value is the id already, as a decimal number; others than 0 to rows - 1 are refused.
        missing_id: Id of an empty field.
        unseen_id: Id of a value that is not in the vocabulary; without meaning for hashed ids.
    """

    field: str
    rows: int
    hashed: HashedIds | None = None
    vocabulary: Vocabulary | None = None
    missing_id: int = 0
    unseen_id: int = 1
    direct: bool = False

    def __post_init__(self) -> None:
        if (self.hashed is not None) + (self.vocabulary is not None) + self.direct != 1:
            raise BadInput(f"feature {self.field}: needs exactly one of hashed, vocabulary and direct.")
        last = max(self.missing_id, self.unseen_id if self.vocabulary is not None else 0)
        if self.hashed is not None:
            last = max(last, self.hashed.first_id + self.hashed.modulus - 1)
        if self.vocabulary is not None and self.vocabulary.values:
            last = max(last, self.vocabulary.first_id + len(self.vocabulary.values) - 1)
        if last >= self.rows or min(self.missing_id, self.unseen_id) < 0:
            raise BadInput(f"feature {self.field}: ids reach {last}: the table has {self.rows} rows.")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRow:
    """One raw row with what it must become."""

    raw: tuple[str, ...]
    dense: tuple[float, ...]
    ids: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """How raw rows become the inputs of a recommender.

    Attributes:
        fields: Names of the raw fields, in order.
        dense: One entry per column of the dense input.
        categorical: One entry per column of the id input.
        dense_input: Name of the model's input [batch, len(dense)] of float32.
        ids_input: Name of the model's input [batch, len(categorical)] of integer ids.
        golden: Up to 32 rows with the score of the float source model.
    """

    fields: tuple[str, ...]
    dense: tuple[Dense, ...]
    categorical: tuple[Categorical, ...]
    dense_input: str = "dense"
    ids_input: str = "sparse"
    golden: tuple[GoldenRow, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.fields)
        used = [feature.field for feature in self.dense] + [feature.field for feature in self.categorical]
        problems = [
            f"feature {name}: no such field; known: {', '.join(self.fields)}." for name in used if name not in known
        ]
        if len(known) != len(self.fields):
            problems.append("fields: a name stands twice.")
        if problems:
            raise BadInput(*problems)

    @property
    def table_rows(self) -> tuple[int, ...]:
        """Rows of each table, in the order of the id input's columns."""
        return tuple(feature.rows for feature in self.categorical)


def encode(spec: FeatureSpec, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """One raw row as (dense float32 [len(dense)], ids int64 [len(categorical)]).

    Raises:
        BadInput: As `encode_rows`.
    """
    dense, ids = encode_rows(spec, [row])
    return dense[0], ids[0]


def encode_rows(spec: FeatureSpec, rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Raw rows as (dense float32 [rows, len(dense)], ids int64 [rows, len(categorical)]).

    Raises:
        BadInput: A row has another number of fields, or a value cannot be read; names row and feature.
    """
    return RowEncoder(spec)(rows)


class RowEncoder:
    """`encode_rows` for logs that come in pieces: vocabularies are laid out once."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._id_of = [_id_function(category) for category in spec.categorical]

    def __call__(self, rows: Sequence[Row], *, first_row: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As `encode_rows`.

        Args:
            first_row: Number of the first of these rows, for messages.
        """
        spec = self.spec
        wrong = [
            f"row {first_row + index}: {len(row)} fields: must be {len(spec.fields)} "
            f"({', '.join(spec.fields[:4])}, ...)."
            for index, row in enumerate(rows)
            if len(row) != len(spec.fields)
        ]
        if wrong:
            raise BadInput(*wrong[:MAX_PROBLEMS])
        column = {name: index for index, name in enumerate(spec.fields)}
        problems: list[str] = []
        dense = np.empty((len(rows), len(spec.dense)), np.float32)
        for at, feature in enumerate(spec.dense):
            values = [row[column[feature.field]] for row in rows]
            dense[:, at] = _numbers(feature, values, problems, first_row)
        ids = np.empty((len(rows), len(spec.categorical)), np.int64)
        for at, (category, id_of) in enumerate(zip(spec.categorical, self._id_of, strict=True)):
            values = [row[column[category.field]] for row in rows]
            ids[:, at] = _ids(category, id_of, values, problems, first_row)
        if problems:
            raise BadInput(*problems[:MAX_PROBLEMS])
        return dense, ids


def _numbers(feature: Dense, values: list[str], problems: list[str], first_row: int) -> np.ndarray:
    numbers = np.full(len(values), feature.missing, np.float64)
    for index, text in enumerate(values):
        if not text:
            continue
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            numbers[index] = number
        else:
            problems.append(
                f"row {first_row + index}: feature {feature.field}: {text!r}: must be a finite number, or empty."
            )
    if feature.transform == "log1p":
        numbers = np.log1p(np.maximum(numbers, 0.0))
    elif feature.transform == "signed-log1p":
        numbers = np.sign(numbers) * np.log1p(np.abs(numbers))
    scaled: np.ndarray = ((numbers - feature.mean) / feature.std).astype(np.float32)
    return scaled


def _ids(
    feature: Categorical, id_of: Callable[[str], int], values: list[str], problems: list[str], first_row: int
) -> np.ndarray:
    known: dict[str, int] = {"": feature.missing_id}
    ids = np.empty(len(values), np.int64)
    for index, text in enumerate(values):
        if text not in known:
            try:
                known[text] = id_of(text)
            except ValueError:
                right = f"a number below {feature.rows}" if feature.direct else "a hexadecimal integer"
                problems.append(f"row {first_row + index}: feature {feature.field}: {text!r}: must be {right}.")
                continue
        ids[index] = known[text]
    return ids


def _id_function(feature: Categorical) -> Callable[[str], int]:
    if feature.hashed is not None:
        return feature.hashed.id_of
    if feature.direct:
        return lambda value: _direct_id(value, feature.rows)
    assert feature.vocabulary is not None, "checked when the feature was made"
    first = feature.vocabulary.first_id
    positions = {value: first + index for index, value in enumerate(feature.vocabulary.values)}
    return lambda value: positions.get(value, feature.unseen_id)


def _direct_id(value: str, rows: int) -> int:
    if not (value.isascii() and value.isdigit() and int(value) < rows):
        raise ValueError(value)
    return int(value)


def golden_problems(spec: FeatureSpec, *, tolerance: float = 1e-5) -> tuple[str, ...]:
    """Where the golden rows do not become what they say; empty when the encoding is the one that trained the model."""
    if not spec.golden:
        return ()
    dense, ids = encode_rows(spec, [row.raw for row in spec.golden])
    problems = []
    for index, row in enumerate(spec.golden):
        if len(row.dense) != len(spec.dense) or not np.allclose(dense[index], row.dense, rtol=0, atol=tolerance):
            problems.append(f"golden row {index}: dense values {dense[index].tolist()}: must be {list(row.dense)}.")
        if tuple(ids[index].tolist()) != row.ids:
            problems.append(f"golden row {index}: ids {ids[index].tolist()}: must be {list(row.ids)}.")
    return tuple(problems)


def write_features(spec: FeatureSpec, folder: Path) -> tuple[Path, ...]:
    """Write `features.json` and, for vocabularies of more than 256 values, a file each beside it.

    Returns:
        All files written, `features.json` first.
    """
    files: list[Path] = []
    categorical = []
    for index, feature in enumerate(spec.categorical):
        vocabulary = feature.vocabulary
        if vocabulary is not None and len(vocabulary.values) > INLINE_VOCABULARY:
            name = f"vocabulary-{index}.json"
            write_json(VocabularyFile(values=vocabulary.values), folder / name)
            files.append(folder / name)
            vocabulary = dataclasses.replace(vocabulary, values=(), file=name)
        categorical.append(dataclasses.replace(feature, vocabulary=vocabulary))
    write_json(dataclasses.replace(spec, categorical=tuple(categorical)), folder / FEATURES_FILE)
    return (folder / FEATURES_FILE, *files)


def read_features(path: Path) -> FeatureSpec:
    """The FeatureSpec of a `features.json` or of the folder that holds one, vocabulary files read in.

    Raises:
        BadInput: A file is missing or damaged, or golden rows contradict the description.
    """
    path = path / FEATURES_FILE if path.is_dir() else path
    spec = read_json(FeatureSpec, path)
    categorical = []
    for feature in spec.categorical:
        vocabulary = feature.vocabulary
        if vocabulary is not None and vocabulary.file:
            if Path(vocabulary.file).name != vocabulary.file:
                raise BadInput(f"{path}: feature {feature.field}: {vocabulary.file}: must be a file name alone.")
            content = read_json(VocabularyFile, path.parent / vocabulary.file)
            vocabulary = dataclasses.replace(vocabulary, values=content.values, file="")
        categorical.append(dataclasses.replace(feature, vocabulary=vocabulary))
    spec = dataclasses.replace(spec, categorical=tuple(categorical))
    problems = golden_problems(spec)
    if problems:
        raise BadInput(*(f"{path}: {problem}" for problem in problems))
    return spec
