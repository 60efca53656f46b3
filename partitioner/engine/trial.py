"""A task that does next to nothing, to try an engine or a cluster with: it counts and notes that it ran."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["squares"]


def squares(number: int, *, log: str = "", seconds: float = 0.0) -> dict[str, np.ndarray]:
    """The first `number` squares.

    Args:
        log: A file to which each execution adds a line, so that repetitions can be counted.
        seconds: How long it takes.

    Raises:
        BadInput: A negative number.
    """
    if number < 0:
        raise BadInput(f"squares of {number}: must not be negative.")
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{number}\n")
    time.sleep(seconds)
    values = np.arange(number + 1, dtype=np.int64)
    return {"value": values, "square": values * values}
