"""Results on disk: one Parquet file a task, named by the task's key, that appears in one rename."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require
from partitioner.engine.task import Task

__all__ = ["has_result", "load_results", "partition_path", "save_result"]


def partition_path(folder: Path, task: Task) -> Path:
    """Where the result of `task` lies."""
    return folder / f"{task.key}.parquet"


def has_result(folder: Path, task: Task) -> bool:
    """Whether it is there; what was half-written when a run was killed has another name."""
    return partition_path(folder, task).is_file()


def save_result(folder: Path, task: Task, table: Mapping[str, np.ndarray]) -> Path:
    """Write a task's columns, and the task itself into the file's metadata.

    Raises:
        BadInput: The folder cannot be written.
        MissingExtra: pyarrow is not installed.
    """
    arrow = require("pyarrow", extra="simulate")
    parquet = require("pyarrow.parquet", extra="simulate")
    final = partition_path(folder, task)
    # Two runs may write the same result at once: each has a partial file of its own, and either is right.
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    about = {"edge_deploy.function": task.function, "edge_deploy.revision": str(task.revision)}
    columns = {name: arrow.array(values) for name, values in table.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parquet.write_table(
            arrow.table(columns).replace_schema_metadata({**about, "edge_deploy.arguments": task.arguments}),
            partial,
            compression="zstd",
        )
        partial.replace(final)
    except OSError as error:
        raise BadInput(f"{final}: could not be written ({error.strerror or error}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return final


def load_results(folder: Path, tasks: Iterable[Task], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Columns of each task's result, in the order of `tasks`.

    Raises:
        BadInput: A result is missing or damaged.
        MissingExtra: pyarrow is not installed.
    """
    parquet = require("pyarrow.parquet", extra="simulate")
    arrow = require("pyarrow", extra="simulate")
    found = []
    for task in tasks:
        path = partition_path(folder, task)
        try:
            table = parquet.read_table(path, columns=list(columns) if columns else None)
        except (OSError, arrow.ArrowInvalid, arrow.ArrowKeyError) as error:
            raise BadInput(f"{path}: cannot be read ({error}); delete it and run again.") from error
        found.append({name: table.column(name).to_numpy() for name in table.column_names})
    return found
