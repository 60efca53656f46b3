"""A task as a pure value: which function, with which plain arguments. Equal tasks have one key, on every machine."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import to_json

__all__ = ["Task", "carry_out", "make_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Made by `make_task`.

    Attributes:
        function: "package.module:name"; takes the arguments by name and returns columns (arrays of one length) by
            name. It must depend on nothing else: no clock, no file, no state.
        arguments: Canonical JSON text of the arguments: the same whatever order they were given in.
        revision: Of what the function computes; raise it when the same arguments give another result.
    """

    function: str
    arguments: str
    revision: int = 1

    @property
    def key(self) -> str:
        """Hex digest of the task's content; the name of its result."""
        text = f"{self.function}\n{self.revision}\n{self.arguments}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def make_task(function: str, arguments: Mapping[str, Any], *, revision: int = 1) -> Task:
    """A task; `arguments` are plain JSON values or what `edge_deploy.core.serde` makes such (dataclasses, arrays).

    Raises:
        BadInput: The function's name is no "module:name", or an argument cannot be written as JSON.
    """
    if function.count(":") != 1:
        raise BadInput(f"task {function}: must be package.module:name.")
    try:
        text = json.dumps(to_json(dict(arguments)), sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadInput(f"task {function}: its arguments are no plain values ({error}).") from error
    return Task(function=function, arguments=text, revision=revision)


def carry_out(task: Task) -> dict[str, np.ndarray]:
    """Call the task's function.

    Raises:
        BadInput: There is no such function, or it gave no columns of one length.
    """
    module, name = task.function.split(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"task {task.function}: no such function ({error}).") from error
    table = {str(column): np.asarray(values) for column, values in function(**json.loads(task.arguments)).items()}
    if not table or len({len(values) for values in table.values()}) != 1:
        raise BadInput(f"task {task.function}: gave no columns of one length.")
    return table
