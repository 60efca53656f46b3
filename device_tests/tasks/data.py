"""The samples of a task: found in the user's folder, checked against their labels, read item by item."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from device_tests.tasks.task import Task
from edge_deploy.core.errors import BadInput
from edge_deploy.zoo.description import Items
from edge_deploy.zoo.items import Item, find_items

__all__ = ["Part", "TaskSamples", "find_task_folder", "open_task_data"]

Part = Literal["all", "evaluate"]
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")
DEPTH = 5
MOST_FOLDERS = 20_000
# `convert --calibrate` with a description's split takes the first fifth in the order of the items' sha256.
CALIBRATION_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSamples:
    """Items with their labels.

    Attributes:
        names: Of the items.
        labels: [items].
        classes: How many the labels file speaks of; 0 where it does not say.
        rows: Samples of an item, raw as stored: one array [samples, *shape] by input name ("" where items have none).
        offered: How many items there were before a part or a limit was taken.
    """

    folder: Path
    names: tuple[str, ...]
    labels: np.ndarray
    classes: int
    rows: Callable[[int], Mapping[str, np.ndarray]]
    offered: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line of the labels file."""

    name: str
    classes: int
    label: int
    window_bytes: int
    stride_bytes: int


def find_task_folder(task: Task, folder: Path) -> Path | None:
    """The folder of the task's data: `folder` itself, or one of the task's names at most five levels below it.

    Raises:
        BadInput: There is no such folder at all.
    """
    if not folder.is_dir():
        raise BadInput(f"--data {folder}: no such folder.")
    if _holds(task, folder) and (folder.name in task.data.folders or task.data.arrays):
        return folder
    for place in _below(folder):
        if place.name in task.data.folders and _holds(task, place):
            return place
    return folder if _holds(task, folder) else None


def open_task_data(task: Task, folder: Path, *, limit: int | None = None, part: Part = "all") -> TaskSamples:
    """The task's samples in a folder that `find_task_folder` found.

    Args:
        limit: Take that many items at most, first in the order of their bytes' sha256: a fair sample.
        part: "evaluate" leaves out the first fifth in that order, which calibration may have seen.

    Raises:
        BadInput: Items are missing, damaged or of another size; labels are no class indices.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit = {limit}: must be at least 1.")
    if task.data.arrays:
        return _arrays(task, folder, limit=limit)
    lines, items = _labelled(task, folder)
    order = sorted(range(len(lines)), key=lambda index: hashlib.sha256(items[index].read()).digest())
    if part == "evaluate":
        order = order[round(len(order) * CALIBRATION_SHARE) :]
    order = order[:limit]
    chosen = [(lines[index], items[index]) for index in order]
    return TaskSamples(
        folder=folder,
        names=tuple(line.name for line, _ in chosen),
        labels=np.array([line.label for line, _ in chosen], np.int64),
        classes=max(line.classes for line, _ in chosen),
        rows=lambda index: {"": _samples(task, *chosen[index], where=folder)},
        offered=len(lines),
    )


def _below(folder: Path) -> Iterator[Path]:
    for seen, (place, inside, _) in enumerate(os.walk(folder)):
        inside.sort()
        depth = len(Path(place).relative_to(folder).parts)
        if depth >= DEPTH or seen > MOST_FOLDERS:
            inside.clear()
        if depth:
            yield Path(place)


def _holds(task: Task, folder: Path) -> bool:
    return (folder / (task.data.arrays or task.data.labels)).is_file()


def _labelled(task: Task, folder: Path) -> tuple[list[_Line], list[Item]]:
    """The lines of the labels file with their items; of an alternative file where that one's items are all there."""
    first = folder / task.data.labels
    found = {PurePosixPath(item.name).name: item for item in _items(task, folder)}
    missing: list[str] = []
    for path in (first, *sorted(folder.glob(f"{first.stem}_*{first.suffix}"))):
        lines = _read_labels(task, path)
        absent = [line.name for line in lines if PurePosixPath(line.name).name not in found]
        if not absent:
            return lines, [found[PurePosixPath(line.name).name] for line in lines]
        missing.append(f"{path}: {len(absent)} of its {len(lines)} items are not in {folder}, e.g. {absent[0]}.")
    raise BadInput(*missing)


def _items(task: Task, folder: Path) -> list[Item]:
    if any(folder.rglob(task.data.pattern)):
        return find_items(Items(path=str(folder.resolve()), pattern=task.data.pattern), Path("/"))
    archives = [file for file in sorted(folder.iterdir()) if file.name.endswith(ARCHIVES)]
    if not archives:
        raise BadInput(f"{folder}: holds no {task.data.pattern} and no archive of them; {task.title} needs its items.")
    paths = tuple(str(archive.resolve()) for archive in archives)
    return find_items(Items(path=paths, pattern=task.data.pattern), Path("/"))


def _read_labels(task: Task, path: Path) -> list[_Line]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot be read ({error}).") from error
    lines, problems = [], []
    for number, row in enumerate(rows, start=1):
        if not row or not any(cell.strip() for cell in row):
            continue
        try:
            numbers = [int(cell) for cell in row[1:]]
            if len(numbers) not in (2, 4) or not 0 <= numbers[1] < numbers[0]:
                raise ValueError
        except ValueError:
            problems.append(
                f"{path}: line {number}: {','.join(row)!r}: must be file,classes,class with 0 <= class < classes, and "
                "for windows their width and stride in bytes."
            )
            continue
        window, stride = numbers[2:] if len(numbers) == 4 else (task.data.window_bytes, task.data.stride_bytes)
        lines.append(
            _Line(name=row[0].strip(), classes=numbers[0], label=numbers[1], window_bytes=window, stride_bytes=stride)
        )
    if not lines and not problems:
        problems.append(f"{path}: is empty.")
    if problems:
        raise BadInput(*problems[:5])
    return lines


def _samples(task: Task, line: _Line, item: Item, *, where: Path) -> np.ndarray:
    content = item.read()
    kind = np.dtype(task.data.dtype).newbyteorder("<")
    needed = math.prod(task.data.shape) * kind.itemsize
    if not line.window_bytes:
        if len(content) != needed:
            raise BadInput(
                f"{where / line.name}: {len(content)} bytes: {task.title} takes {needed} "
                f"({task.data.dtype} {list(task.data.shape)})."
            )
        values = np.frombuffer(content, kind)[None]
    else:
        if line.window_bytes != needed or line.stride_bytes < 1 or line.stride_bytes % kind.itemsize:
            raise BadInput(
                f"{where / task.data.labels}: {line.name}: windows of {line.window_bytes} bytes every "
                f"{line.stride_bytes}: {task.title} takes windows of {needed} bytes at whole values."
            )
        if len(content) < needed or len(content) % kind.itemsize:
            raise BadInput(f"{where / line.name}: {len(content)} bytes: less than one window of {needed}, or damaged.")
        flat = np.frombuffer(content, kind)
        wide = np.lib.stride_tricks.sliding_window_view(flat, needed // kind.itemsize)
        values = wide[:: line.stride_bytes // kind.itemsize]
    if kind.kind == "f" and not np.isfinite(values).all():
        raise BadInput(f"{where / line.name}: holds values that are NaN or infinite.")
    return values.reshape(-1, *task.data.shape)


def _arrays(task: Task, folder: Path, *, limit: int | None) -> TaskSamples:
    path = folder / task.data.arrays
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise BadInput(f"{path}: not an npz file of plain arrays ({error}).") from error
    labels = arrays.pop("y", None)
    if labels is None or not arrays:
        raise BadInput(
            f"{path}: must hold the inputs by name and the labels as y; found {', '.join(arrays) or 'none'}."
        )
    lengths = {name: len(array) for name, array in arrays.items()} | {"y": labels.size}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name} {count}" for name, count in lengths.items())
        raise BadInput(f"{path}: arrays of different lengths ({told}): must be one row for each label.")
    count = labels.size if limit is None else min(limit, labels.size)
    return TaskSamples(
        folder=folder,
        names=tuple(str(row) for row in range(count)),
        labels=labels.reshape(-1)[:count],
        classes=2,
        rows=lambda index: {name: array[index : index + 1] for name, array in arrays.items()},
        offered=labels.size,
    )
