"""Run a sweep of tasks: what is there already is not repeated, and what is computed is kept at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core import registry
from edge_deploy.core.errors import BadInput
from partitioner.engine.store import has_result, save_result
from partitioner.engine.task import Task

__all__ = ["ENGINES", "Ran", "run_tasks"]

ENGINES = "partitioner.engine.engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a run did.

    Attributes:
        executed: Tasks computed now.
        found: Tasks whose results were there.
    """

    executed: int
    found: int


def run_tasks(
    tasks: Sequence[Task],
    folder: Path,
    *,
    engine: str = "local",
    scheduler: str | None = None,
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Ran:
    """Make sure that `folder` holds the result of every task; read them by `partitioner.engine.store.load_results`.

    A run that was killed is simply started again: results are written one by one as they come, under the digest of
    the task that they answer.

    Args:
        engine: A module of `partitioner.engine.engines`: local or dask.
        scheduler: Address, for dask.
        jobs: Processes of the local engine.
        progress: Called with how many are done, and of how many.

    Raises:
        BadInput: An unknown engine, or options that do not fit it.
        DeviceError: The cluster or a worker process failed.
        EdgeDeployError: The one a task raised; the results so far are kept.
    """
    chosen = registry.load(ENGINES, engine)
    if jobs < 1:
        raise BadInput(f"jobs = {jobs}: must be at least 1.")
    if scheduler and engine != "dask":
        raise BadInput(f"--scheduler {scheduler}: only the engine dask has one; add --engine dask.")
    different = list({task.key: task for task in tasks}.values())
    open_tasks = [task for task in different if not has_result(folder, task)]
    done = len(different) - len(open_tasks)
    progress(done, len(different))
    if open_tasks:
        for task, table in chosen.execute(open_tasks, scheduler=scheduler, jobs=jobs):
            save_result(folder, task, table)
            done += 1
            progress(done, len(different))
    return Ran(executed=len(open_tasks), found=len(different) - len(open_tasks))
