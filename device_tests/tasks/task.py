"""A task in TOML: its data, its metric, the floor that a model must reach, and which models fit it."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import from_json
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.description import Preprocess

__all__ = ["Task", "TaskData", "TaskModel", "find_tasks", "fits", "read_task", "suite_names", "task_names"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskModel:
    """Which models answer a task, by the number of values of one sample; empty fits none by itself.

    Attributes:
        outputs: Any of these numbers will do.
    """

    inputs: int = 0
    outputs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """Where the samples are, within the folder that the user gives.

    Attributes:
        folders: Names of the folder that holds them, at any depth.
        labels: One line an item: file name, number of classes, class; for windows also their width and stride in bytes.
        shape: Of one sample; an item is one sample, or a row of windows.
        dtype: As NumPy writes it; little endian.
        window_bytes: Width of a window; 0 where an item is one sample. Stride likewise; the labels may say others.
        arrays: An .npz of inputs by name and `y` instead of items and labels.
    """

    folders: tuple[str, ...]
    labels: str = "y_labels.csv"
    pattern: str = "*.bin"
    shape: tuple[int, ...] = ()
    dtype: str = "uint8"
    window_bytes: int = 0
    stride_bytes: int = 0
    arrays: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task.

    Attributes:
        name: Its file's.
        suites: Which it is part of.
        score: "output" takes the model's output; "reconstruction" the mean squared error between input and output.
        floor: What the metric must reach; None where `floor_of_float` says it as a share of the float model's.
        group: A regular expression in item names; the metric is taken for each group, and their mean counts.
    """

    name: str
    title: str
    suites: tuple[str, ...]
    metric: Literal["accuracy", "auc"]
    data: TaskData
    model: TaskModel = TaskModel()
    preprocess: Preprocess = field(default_factory=Preprocess)
    score: Literal["output", "reconstruction"] = "output"
    floor: float | None = None
    floor_of_float: float | None = None
    group: str = ""

    def __post_init__(self) -> None:
        problems = []
        for name, value in (("floor", self.floor), ("floor_of_float", self.floor_of_float)):
            if value is not None and not 0 < value <= 1:
                problems.append(f"{self.name}.toml: {name} = {value}: must lie in 0 to 1.")
        if not self.data.folders:
            problems.append(f"{self.name}.toml: data.folders: name at least one folder.")
        if not self.data.arrays and not self.data.shape:
            problems.append(f"{self.name}.toml: data.shape: say the shape of one sample, e.g. [32, 32, 3].")
        if bool(self.data.window_bytes) != bool(self.data.stride_bytes):
            problems.append(f"{self.name}.toml: data: window_bytes and stride_bytes go together.")
        try:
            re.compile(self.group)
        except re.error as error:
            problems.append(f"{self.name}.toml: group = {self.group!r}: no regular expression ({error}).")
        if problems:
            raise BadInput(*problems)


def task_names() -> tuple[str, ...]:
    """Names of the tasks that come along."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def suite_names() -> tuple[str, ...]:
    """Names of the suites that they form."""
    return tuple(sorted({suite for name in task_names() for suite in read_task(FOLDER / f"{name}.toml").suites}))


def find_tasks(name: str) -> tuple[Task, ...]:
    """The tasks of a suite, or the task of this name, or the one in this TOML file.

    Raises:
        BadInput: There is none; close names are suggested.
    """
    if name.endswith(".toml"):
        return (read_task(Path(name)),)
    built_in = [read_task(FOLDER / f"{each}.toml") for each in task_names()]
    wanted = name.replace("-", "_")
    found = tuple(task for task in built_in if task.name == wanted or name in task.suites or name == "all")
    if not found:
        known = (*suite_names(), "all", *task_names())
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}, or a .toml file."
        raise BadInput(f"suite or task {name}: unknown; {hint}")
    return found


def read_task(path: Path) -> Task:
    """The task that a TOML file describes; its name is the file's.

    Raises:
        BadInput: Not TOML, unknown keys (close names are suggested), or values out of range.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{path}: not a task description ({error}).") from error
    return from_json(Task, {"name": path.stem, **content}, where=path.name)


def fits(task: Task, signature: Signature, *, arrays: Sequence[str] = ()) -> bool:
    """Whether a model with this signature answers the task: by the sizes of one sample, or by the arrays' names.

    Args:
        arrays: Names in the task's .npz, where its data is one.
    """
    if task.data.arrays:
        names = {info.name for info in signature.inputs}
        return bool(names) and names <= set(arrays)
    if len(signature.inputs) != 1 or not signature.outputs or not task.model.inputs:
        return False
    taken, given = _values(signature.inputs[0]), _values(signature.outputs[0])
    return taken == task.model.inputs and given in task.model.outputs


def _values(info: TensorInfo) -> int:
    return math.prod(max(size, 1) for size in info.shape[1:])
