"""What an engine is: something that carries out tasks in any order and hands their tables over as they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from partitioner.engine.task import Task

__all__ = ["Engine", "Table"]

# Columns of one length by name.
Table: TypeAlias = Mapping[str, np.ndarray]


class Engine(Protocol):
    """A module of `partitioner.engine.engines`."""

    def execute(self, tasks: Sequence[Task], *, scheduler: str | None, jobs: int) -> Iterator[tuple[Task, Table]]:
        """Carry out `tasks` and yield each with its table, in the order in which they end.

        Args:
            scheduler: Address of a cluster, where the engine uses one.
            jobs: Tasks at a time, where the engine has workers of its own.

        Raises:
            EdgeDeployError: The one a task raised.
            DeviceError: The cluster cannot be reached or lost its workers.
        """
        ...
