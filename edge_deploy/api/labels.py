"""Hold the class names that a user gives against the model's output."""

from __future__ import annotations

import math

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

__all__ = ["check_labels"]


def check_labels(labels: tuple[str, ...], outputs: tuple[TensorInfo, ...]) -> None:
    """Refuse another number of names than the first output has classes.

    An output of one value has one class or two. Where there are several axes, any of them may be the classes'.

    Raises:
        BadInput: Says both numbers.
    """
    if not labels or not outputs:
        return
    sizes = outputs[0].shape[1:]
    if any(size < 0 for size in sizes):
        return
    count = math.prod(sizes)
    allowed = {1, 2} if count == 1 else {count, *sizes} - {1}
    if len(labels) not in allowed:
        classes = f"{count} classes" if len(allowed) == 1 else f"shape {sizes}"
        raise BadInput(
            f"--labels: {len(labels)} class names, output {outputs[0].name} has {classes}: must be one name for each "
            "class, one a line, in the order of their indices."
        )
