"""Compress the tables of a trained checkpoint: few bits, searched ranges, hot rows; the result is a checkpoint again.

The folder it writes:

| file | what |
|---|---|
| `weights.pt` | the state dict with tables on their grids; scales and hot rows beside it, as a conversion takes them |
| `compressed.json` | `CompressReport` |
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.compress.dqrm import BITS_NAME, SCALE_NAME
from converters.compress.replace import embeddings
from converters.compress.tables import CompressedTable, TablePlan, Tried, compress_table, hottest, try_table
from converters.loading.checkpoint import load_weights_and_scales
from converters.loading.forward_call import bind, flat_module
from converters.loading.torch_factory import make_module
from converters.recommender.hot_checkpoint import HOT_BITS, HOT_ROWS
from converters.recommender.hot_rows import directory_bytes
from converters.samples import spool
from edge_deploy.core.errors import BadInput, Unsupported
from edge_deploy.core.publish import published_folder
from edge_deploy.core.require import require
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.datasets import open_dataset
from edge_deploy.zoo.description import find_description

__all__ = ["CompressReport", "CompressRequest", "TableReport", "compress", "count_rows", "read_counts"]

REPORT = "compressed.json"
COUNT_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressRequest:
    """What to compress, and how.

    Attributes:
        source: "package.module:factory" of the PyTorch module.
        counts: How often each row is looked up, which only hot rows need: an npz with an array for each table, by the
            name of its module, or samples whose ids are counted.
        hot: Share of all rows that stays wide.
        inputs: Of the module, as for a conversion; needed to count samples.
    """

    source: str
    weights: Path
    out: Path
    plan: TablePlan = field(default_factory=TablePlan)
    hot: float = 0.0
    counts: Path | None = None
    inputs: tuple[TensorInfo, ...] = ()
    search_path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        if not 0 <= self.hot <= 1:
            problems.append(f"--hot {self.hot}: must be a share from 0 to 1, or from 0% to 100%.")
        if self.hot and self.counts is None:
            problems.append("--hot: which rows are hot is counted; pass --counts with training samples.")
        if problems:
            raise BadInput(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """What became of one table.

    Attributes:
        error: Root of the mean squared error over that of the values.
        bytes: In a file: rows, scales, hot rows and their directory.
        hits: Share of the counted look-ups that reach a hot row; None where nothing was counted.
        tried: Every way of rounding it, measured on at most 32,768 rows.
    """

    name: str
    rows: int
    dim: int
    hot_rows: int
    error: float
    bytes: int
    hits: float | None
    tried: tuple[Tried, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressReport:
    """All tables.

    Attributes:
        float_bytes: Of the tables as float32.
        bytes: Of the tables in a file, with everything that they need.
    """

    source: str
    plan: TablePlan
    hot: float
    float_bytes: int
    bytes: int
    tables: tuple[TableReport, ...]


def compress(
    request: CompressRequest, *, force: bool = False, progress: Callable[[str], None] = lambda stage: None
) -> CompressReport:
    """Compress every embedding table of the module and write `request.out`, whole or not at all.

    Raises:
        BadInput: The factory, checkpoint or samples are not what they must be, or `out` exists.
        Unsupported: The module has no embedding table, or its checkpoint is compressed already.
    """
    torch = require("torch", extra="run-executorch")
    if request.out.exists() and not force:
        raise BadInput(f"{request.out}: exists already; choose another --out or pass --force to replace it.")
    if request.out.exists() and not (request.out / REPORT).is_file():
        raise BadInput(f"{request.out}: holds other things than ours; --force replaces only folders we wrote.")
    progress("load the checkpoint")
    module = make_module(request.source, request.search_path).eval()
    _, scales = load_weights_and_scales(module, request.weights)
    if scales:
        raise Unsupported(
            f"--weights {request.weights}: has scales already ({next(iter(scales))}); give float weights."
        )
    tables = embeddings(module)
    if not tables:
        raise Unsupported(
            f"--source {request.source}: has no nn.Embedding and no nn.EmbeddingBag; arrays that tables share (ROBE) "
            "are compressed by convert alone."
        )
    counts: Mapping[str, np.ndarray] = {}
    if request.counts is not None:
        progress("count the looked-up rows")
        rows = {name: table.num_embeddings for name, table in tables.items()}
        found = read_counts(request.counts, rows)
        if found is None and not request.inputs:
            raise BadInput(
                f"--counts {request.counts}: has no counts for {next(iter(rows))}, so that its ids are counted by "
                "running the module: declare its inputs with --input."
            )
        counts = found or count_rows(module, request.source, request.inputs, request.counts)
    hot = hottest(counts, request.hot) if request.hot else {}
    state: dict[str, Any] = dict(module.state_dict())
    reports = []
    for name, table in tables.items():
        progress(f"{name}: {table.num_embeddings} x {table.embedding_dim}")
        weight = table.weight.detach().numpy()
        try:
            made = compress_table(weight, request.plan, hot.get(name))
        except BadInput as error:
            raise BadInput(*(f"table {name}: {problem}" for problem in error.problems)) from error
        state |= _entries(torch, name, made, request.plan)
        reports.append(_report(name, weight, made, request.plan, counts.get(name)))
    report = CompressReport(
        source=request.source,
        plan=request.plan,
        hot=request.hot,
        float_bytes=sum(4 * each.rows * each.dim for each in reports),
        bytes=sum(each.bytes for each in reports),
        tables=tuple(reports),
    )
    with published_folder(request.out, force=force) as folder:
        torch.save(state, folder / "weights.pt")
        write_json(report, folder / REPORT)
    return report


def read_counts(path: Path, rows: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """The counts in an npz, as `edge-deploy train` writes it; None where the file holds other things.

    Args:
        rows: Of each table, by the name of its module.

    Raises:
        BadInput: A table has another number of rows than its counts, or counts are negative or no integers.
    """
    if path.suffix != ".npz":
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            if not set(rows) <= set(held.files):
                return None
            found = {name: held[name] for name in rows}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"--counts {path}: cannot be read ({error}).") from error
    problems = [
        f"--counts {path}: {name}: {counts.dtype} {counts.shape}: must be counts of the table's {rows[name]} rows."
        for name, counts in found.items()
        if counts.dtype.kind not in "iu" or counts.shape != (rows[name],) or (counts < 0).any()
    ]
    if problems:
        raise BadInput(*problems)
    return found


def count_rows(module: Any, source: str, inputs: tuple[TensorInfo, ...], samples: Path) -> dict[str, np.ndarray]:
    """How often each row of each table is looked up by these samples.

    Raises:
        BadInput: The samples do not fit the inputs, or an id lies outside its table.
    """
    torch = require("torch", extra="run-executorch")
    tables = embeddings(module)
    counts = {name: np.zeros(table.num_embeddings, np.int64) for name, table in tables.items()}

    def counter(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def see(_: Any, arguments: tuple[Any, ...]) -> None:
            ids = arguments[0].reshape(-1).numpy()
            if len(ids) and not 0 <= ids.min() <= ids.max() < len(counts[name]):
                raise BadInput(f"{samples}: table {name}: ids up to {ids.max()}: must be below {len(counts[name])}.")
            counts[name] += np.bincount(ids, minlength=len(counts[name]))

        return see

    flat = flat_module(module, bind(source, module, inputs))
    hooks = [table.register_forward_pre_hook(counter(name)) for name, table in tables.items()]
    try:
        with torch.no_grad():
            for feeds in _feeds(samples, inputs):
                flat(*(torch.from_numpy(np.ascontiguousarray(array)) for array in feeds))
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def _feeds(samples: Path, inputs: tuple[TensorInfo, ...]) -> Iterator[list[np.ndarray]]:
    dataset = open_dataset(find_description(samples), inputs=inputs)
    with tempfile.TemporaryDirectory(prefix="edge-deploy-count-") as scratch:
        path = Path(scratch, "samples.npz")
        spool(dataset, len(dataset), inputs, path)
        with np.load(path, allow_pickle=False) as held:
            arrays = [held[info.name] for info in inputs]
    size = COUNT_BATCH if all(info.shape[0] in (1, -1) for info in inputs) else inputs[0].shape[0]
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


def _entries(torch: Any, name: str, made: CompressedTable, plan: TablePlan) -> dict[str, Any]:
    """What the checkpoint holds of a table."""
    found = {
        f"{name}.weight": torch.from_numpy(made.values),
        f"{name}.{SCALE_NAME}": torch.from_numpy(made.scales),
        f"{name}.{BITS_NAME}": torch.tensor(plan.bits, dtype=torch.int64),
    }
    if len(made.hot):
        found[name + HOT_ROWS] = torch.from_numpy(made.hot)
        found[name + HOT_BITS] = torch.tensor(plan.hot_bits, dtype=torch.int64)
    return found


def _report(
    name: str, weight: np.ndarray, made: CompressedTable, plan: TablePlan, counts: np.ndarray | None
) -> TableReport:
    rows, dim = weight.shape
    cold = rows - len(made.hot)
    size = cold * (-(-dim * plan.bits // 8) + (2 if plan.scale == "row" else 0)) + (4 if plan.scale == "table" else 0)
    if len(made.hot) == rows:
        size = rows * dim * plan.hot_bits // 8  # nothing is cold, so that nothing has to be found
    elif len(made.hot):
        size += len(made.hot) * dim * plan.hot_bits // 8 + directory_bytes(rows)
    looked_up = 0 if counts is None else int(counts.sum())
    return TableReport(
        name=name,
        rows=rows,
        dim=dim,
        hot_rows=len(made.hot),
        error=made.error,
        bytes=size,
        hits=None if counts is None or not looked_up else float(counts[made.hot].sum() / looked_up),
        tried=try_table(weight, bits=plan.bits),
    )
