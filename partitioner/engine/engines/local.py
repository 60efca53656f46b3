"""The tasks on this machine: one after the other, or several at a time in processes of their own."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

from edge_deploy.core.errors import DeviceError
from partitioner.engine.contracts import Table
from partitioner.engine.task import Task, carry_out

__all__ = ["execute"]


def execute(tasks: Sequence[Task], *, scheduler: str | None = None, jobs: int = 1) -> Iterator[tuple[Task, Table]]:
    """See `partitioner.engine.contracts.Engine`."""
    if jobs == 1:
        for task in tasks:
            yield task, carry_out(task)
        return
    # Spawned, not forked: numerical libraries may have threads by now.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = {pool.submit(carry_out, task): task for task in tasks}
        try:
            for done in concurrent.futures.as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise DeviceError("local engine: a worker process died (out of memory?); run again to go on.") from error
        finally:
            for future in waiting:
                future.cancel()
