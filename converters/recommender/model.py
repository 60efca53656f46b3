"""A recommender as structure and weights: tables, look-ups, MLPs and their interaction, whatever framework made it.

`recognise` makes it from an exported program; the targets emit it. On disk it is a folder: `structure.json` beside one
`.npy` for each array, so that tables can be mapped into memory instead of being read. Arrays that lie in files of the
user's are not copied at all: `arrays.json` says where they stand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from converters.recommender.rows import StoredArray, map_array
from edge_deploy.core.errors import BadInput
from edge_deploy.core.robe import RobeTable
from edge_deploy.core.serde import read_json, write_json
from edge_deploy.core.tensor import TensorInfo

__all__ = [
    "Activation",
    "Dense",
    "HotRows",
    "Interaction",
    "Lookup",
    "Recommender",
    "Table",
    "load",
    "save",
    "source_key",
]

ARRAYS = "arrays.json"
Activation: TypeAlias = Literal["none", "relu", "sigmoid", "tanh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HotRows:
    """Rows of a table that stay wide.

    Attributes:
        ids: Name of an int64 array [count], ascending.
        bits: 16 or 32.
    """

    ids: str
    count: int
    bits: int

    def __post_init__(self) -> None:
        if self.bits not in (16, 32):
            raise BadInput(f"hot rows of {self.bits} bits: must have 16 or 32.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An embedding table; `weight` is the name of a float32 array [rows, dim].

    Attributes:
        robe: Where its elements stand in an array [size, 1] that `weight` names and other tables share (ROBE).
        hot: Rows that stay wide when others get 8 or 4 bits; None where all are alike.
    """

    name: str
    rows: int
    dim: int
    weight: str
    robe: RobeTable | None = None
    hot: HotRows | None = None

    def __post_init__(self) -> None:
        if self.robe is not None and (self.robe.rows, self.robe.hash.dim) != (self.rows, self.dim):
            raise BadInput(f"table {self.name}: {self.rows} x {self.dim}, its hash is for others.")
        if self.hot is not None and (self.robe is not None or not 0 < self.hot.count <= self.rows):
            raise BadInput(f"table {self.name}: {self.hot.count} hot rows of {self.rows}: must be rows of its own.")

    @property
    def array_shape(self) -> tuple[int, int]:
        """Shape of what `weight` names."""
        return (self.rows, self.dim) if self.robe is None else (self.robe.hash.size, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One look-up: ids from columns [column, column + length) of an id input [batch, columns], pooled into one vector.

    Attributes:
        columns_first: The input is [columns, batch] instead.
        pooling: "none" needs length 1.
        padding_index: Ids of this value do not enter the pool; None when there is none.
        weights_input: Input [batch, length] of per-sample weights (pooling "sum"), None when there is none.
    """

    table: int
    input: str
    column: int = 0
    length: int = 1
    columns_first: bool = False
    pooling: Literal["none", "sum", "mean"] = "none"
    padding_index: int | None = None
    weights_input: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """One fully connected layer: `weight` names an array [out, in], `bias` an array [out] or None."""

    name: str
    weight: str
    in_features: int
    out_features: int
    bias: str | None = None
    activation: Activation = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """How the bottom MLP's output and the looked-up vectors meet.

    Attributes:
        vectors: For "dot": the rows of T, in order; -1 is the bottom MLP's output, k >= 0 look-up k. All of one width.
        pairs: For "dot": (row, row) of T for each dot product, in the order in which they enter the top MLP.
        top_inputs: What is concatenated for the top MLP, in order: "bottom", "pairs", "dense:INPUT" (a raw dense
            input), or "lookup:K".
    """

    kind: Literal["dot", "concat"]
    top_inputs: tuple[str, ...]
    vectors: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommender:
    """The structure of a DLRM; `folder` holds the arrays.

    Attributes:
        dense_input: Input of the bottom MLP [batch, features]; None when there is no bottom MLP.
        output_activation: What follows the last layer of `top`; "sigmoid" makes the output a probability.
    """

    inputs: tuple[TensorInfo, ...]
    output: TensorInfo
    tables: tuple[Table, ...]
    lookups: tuple[Lookup, ...]
    interaction: Interaction
    top: tuple[Dense, ...]
    bottom: tuple[Dense, ...] = ()
    dense_input: str | None = None
    output_activation: Activation = "none"

    def __post_init__(self) -> None:
        problems = []
        for index, lookup in enumerate(self.lookups):
            if not 0 <= lookup.table < len(self.tables):
                problems.append(f"look-up {index}: table {lookup.table}: there are {len(self.tables)}.")
            if lookup.pooling == "none" and lookup.length != 1:
                problems.append(f"look-up {index}: length {lookup.length} needs pooling.")
        if self.bottom and self.dense_input is None:
            problems.append("bottom MLP: has no dense input.")
        if problems:
            raise BadInput(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elsewhere:
    """`arrays.json`."""

    arrays: dict[str, StoredArray] = field(default_factory=dict)


def save(
    model: Recommender,
    arrays: Mapping[str, np.ndarray],
    folder: Path,
    *,
    elsewhere: Mapping[str, StoredArray] | None = None,
) -> None:
    """Write structure and arrays into `folder`.

    Args:
        elsewhere: Arrays that stay in files of the user's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if elsewhere:
        write_json(_Elsewhere(arrays=dict(elsewhere)), folder / ARRAYS)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", _stored(array), allow_pickle=False)
    write_json(model, folder / "structure.json")


def load(folder: Path) -> tuple[Recommender, dict[str, np.ndarray]]:
    """The structure and its arrays, mapped from disk and read-only.

    Raises:
        BadInput: The folder is incomplete, or an array has another shape than the structure says.
    """
    model = read_json(Recommender, folder / "structure.json")
    shapes: dict[str, tuple[int, ...]] = {table.weight: table.array_shape for table in model.tables}
    shapes |= {table.hot.ids: (table.hot.count,) for table in model.tables if table.hot is not None}
    for dense in (*model.bottom, *model.top):
        shapes[dense.weight] = (dense.out_features, dense.in_features)
        if dense.bias is not None:
            shapes[dense.bias] = (dense.out_features,)
    arrays: dict[str, np.ndarray] = {}
    elsewhere = read_json(_Elsewhere, folder / ARRAYS).arrays if (folder / ARRAYS).is_file() else {}
    for name, shape in shapes.items():
        if name in elsewhere:
            array = map_array(elsewhere[name])
            if array.shape != shape:
                raise BadInput(f"{elsewhere[name].path}: {name} has shape {array.shape}: must be {shape}.")
            arrays[name] = array
            continue
        try:
            array = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise BadInput(f"{folder / name}.npy: cannot be read ({error}).") from error
        if array.shape != shape:
            raise BadInput(f"{folder / name}.npy: shape {array.shape}: must be {shape}.")
        arrays[name] = array
    return model, arrays


def source_key(folder: Path) -> str:
    """Changes whenever the structure, an array or a learned scale does, or a file of the user's that holds a table."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        found.update(path.name.encode())
        found.update(path.read_bytes())
    elsewhere = read_json(_Elsewhere, folder / ARRAYS).arrays if (folder / ARRAYS).is_file() else {}
    for name, stored in sorted(elsewhere.items()):
        state = stored.path.stat()
        found.update(f"{name}:{state.st_size}:{state.st_mtime_ns};".encode())
    return found.hexdigest()


def _stored(array: np.ndarray) -> np.ndarray:
    """What an array is kept as: float32, ids as they are."""
    return np.ascontiguousarray(array, dtype=np.int64 if array.dtype.kind in "iu" else np.float32)
