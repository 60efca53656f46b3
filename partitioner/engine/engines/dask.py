"""The tasks on a dask.distributed cluster: workers compute, this process writes, so that no common disk is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edge_deploy.core.errors import BadInput, DeviceError
from edge_deploy.core.require import require
from partitioner.engine.contracts import Table
from partitioner.engine.task import Task, carry_out

__all__ = ["execute"]

CONNECT_TIMEOUT_S = 20
# Tasks handed to the cluster per thread of it: enough to keep it busy, few enough that results do not pile up there.
AHEAD = 4


def execute(tasks: Sequence[Task], *, scheduler: str | None, jobs: int = 1) -> Iterator[tuple[Task, Table]]:
    """See `partitioner.engine.contracts.Engine`; the cluster brings its workers, so `jobs` says nothing here.

    Raises:
        BadInput: No scheduler is named.
        DeviceError: It cannot be reached, has no worker, or a worker lacks this package.
    """
    if not scheduler:
        raise BadInput(
            "engine dask: needs --scheduler ADDRESS, e.g. tcp://10.0.0.5:8786; start one by `dask scheduler`."
        )
    distributed = require("distributed", extra="simulate")
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_TIMEOUT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise DeviceError(f"dask scheduler {scheduler}: cannot be reached ({error or 'no answer in time'}).") from error
    try:
        yield from _execute(distributed, client, tasks, scheduler)
    finally:
        client.close()


def _execute(distributed: Any, client: Any, tasks: Sequence[Task], scheduler: str) -> Iterator[tuple[Task, Table]]:
    threads = sum(client.nthreads().values())
    if threads == 0:
        raise DeviceError(f"dask scheduler {scheduler}: has no worker; start one by `dask worker {scheduler}`.")
    waiting = iter(tasks)
    running = {}

    def submit() -> Any | None:
        task = next(waiting, None)
        if task is None:
            return None
        # The key is the content's, so a cluster that has the result already does not compute it again.
        future = client.submit(carry_out, task, key=f"edge-deploy-{task.key}", pure=True)
        running[future.key] = task
        return future

    first = [future for _ in range(AHEAD * threads) if (future := submit()) is not None]
    finished = distributed.as_completed(first, loop=client.loop, raise_errors=False)
    for future in finished:
        task = running.pop(future.key)
        result = _result(distributed, future, scheduler)
        # Released before the caller writes it, so that the cluster forgets it while the disk is busy.
        future.release()
        following = submit()
        if following is not None:
            finished.add(following)
        yield task, result


def _result(distributed: Any, future: Any, scheduler: str) -> Table:
    try:
        table: Table = future.result()
    except (distributed.CancelledError, distributed.KilledWorker, distributed.TimeoutError) as error:
        raise DeviceError(f"dask scheduler {scheduler}: lost its workers ({error}); run again to go on.") from error
    except ModuleNotFoundError as error:
        raise DeviceError(
            f"dask scheduler {scheduler}: a worker lacks {error.name}; install edge-deploy there."
        ) from error
    return table
