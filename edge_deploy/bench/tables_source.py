"""DLRMs of any size on disk, made on the fly: tables uniform in +-sqrt(1 / rows), as training begins."""

from __future__ import annotations

import itertools
import json
import struct
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_deploy.core.require import require

__all__ = ["KAGGLE_ROWS", "LARGE_ROWS", "make_source", "write_factory"]

KAGGLE_ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652,
    2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip
"""The Criteo Kaggle tables (arXiv:2410.20046): 33,762,577 rows."""
LARGE_ROWS = (9_994_101, 9_994_101, 9_000_000, 8_000_000, 7_000_000, 5_000_000, 100_000, 40_000, 1_000, 10)
"""49 million rows together."""
DENSE = 13
CHUNK_ROWS = 1 << 16

Kind = Literal["safetensors", "npy", "torch"]


def make_source(folder: Path, kind: Kind, rows: Sequence[int], dim: int) -> Path:
    """What `--weights` or the model argument takes; made unless it is there already."""
    path = folder / {"safetensors": "model.safetensors", "npy": "npy", "torch": "model.pt"}[kind]
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{path.name}.partial"
    if kind == "npy":
        _write_npy(partial, rows, dim)
    elif kind == "torch":
        _write_torch(partial, make_source(folder, "safetensors", rows, dim))
    else:
        _write_safetensors(partial, rows, dim)
    partial.rename(path)
    return path


def _layers(rows: Sequence[int], dim: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    vectors = len(rows) + 1
    found = {}
    for name, widths in (
        ("bottom", (DENSE, 512, 256, 64, dim)),
        ("top", (dim + vectors * (vectors - 1) // 2, 512, 256, 1)),
    ):
        for place, (before, after) in enumerate(itertools.pairwise(widths)):
            spread = (2 / (before + after)) ** 0.5
            found[f"{name}.{2 * place}.weight"] = (random.standard_normal((after, before)) * spread).astype(np.float32)
            found[f"{name}.{2 * place}.bias"] = (random.standard_normal(after) * after**-0.5).astype(np.float32)
    return found


def _chunks(number: int, rows: int, dim: int) -> Iterator[np.ndarray]:
    random, limit = np.random.default_rng([number, 1]), rows**-0.5
    for start in range(0, rows, CHUNK_ROWS):
        values = random.random((min(CHUNK_ROWS, rows - start), dim), dtype=np.float32)
        values *= 2 * limit
        values -= limit
        yield values


def _write_safetensors(path: Path, rows: Sequence[int], dim: int) -> None:
    shapes = {f"tables.{number}.weight": (count, dim) for number, count in enumerate(rows)}
    layers = _layers(rows, dim)
    head: dict[str, Any] = {}
    at = 0
    for name, shape in (*shapes.items(), *((name, array.shape) for name, array in layers.items())):
        size = 4 * int(np.prod(shape))
        head[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, count in enumerate(rows):
            for values in _chunks(number, count, dim):
                file.write(values.data)
        for array in layers.values():
            file.write(array.tobytes())


def _write_npy(folder: Path, rows: Sequence[int], dim: int) -> None:
    folder.mkdir(exist_ok=True)
    for name, array in _layers(rows, dim).items():
        np.save(folder / f"{name}.npy", array)
    for number, count in enumerate(rows):
        with (folder / f"tables.{number}.weight.npy").open("wb") as file:
            head = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
            np.lib.format.write_array_header_1_0(file, head)
            for values in _chunks(number, count, dim):
                file.write(values.data)


def _write_torch(path: Path, source: Path) -> None:
    """torch.save of the safetensors file, mapped, so that no table is read into memory."""
    torch = require("torch", extra="export-tflite")
    from converters.loading.weight_index import index_weights
    from converters.recommender.rows import map_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that what is mapped must not be written
        state = {name: torch.from_numpy(map_array(stored)) for name, stored in index_weights(source).items()}
    torch.save(state, path)


def write_factory(folder: Path, rows: Sequence[int], dim: int) -> str:
    """A module of the zoo's DLRM with these tables, for --source; its folder must be the current one."""
    (folder / "bench_tables_model.py").write_text(
        "from edge_deploy.zoo.dlrm import DlrmConfig, build\n\n\n"
        "def make():\n"
        f"    return build(DlrmConfig(dense_features={DENSE}, table_rows={tuple(rows)}, dim={dim},\n"
        "                            bottom=(512, 256, 64), top=(512, 256)))\n",
        encoding="utf-8",
    )
    return "bench_tables_model:make"
