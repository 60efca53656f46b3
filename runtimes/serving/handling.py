"""What a request costs a server beside its inference: its way through the queue, measured with an empty one."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from runtimes.serving.batching import Arrays, Batching, Queue, Turns

__all__ = ["measure_handling"]

REQUESTS, ROUNDS = 200, 3


class _Nothing:
    """An inference that takes no time; handed to a thread like one that does."""

    def __call__(self, arrays: Arrays) -> Arrays:
        return arrays

    def is_quick(self, rows: int) -> bool:
        return False


def measure_handling() -> float:
    """Seconds a request, the best of a few rounds; not to be called in an event loop."""
    return asyncio.run(_measured())


async def _measured() -> float:
    loop = asyncio.get_running_loop()
    arrays = {"x": np.zeros(1, np.float32)}
    taken = []
    with ThreadPoolExecutor(1) as threads:
        queue = Queue([_Nothing()], batching=Batching(waiting=REQUESTS), threads=threads, turns=Turns(1))
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            await asyncio.gather(*(queue.infer(arrays, deadline_s=loop.time() + 60.0) for _ in range(REQUESTS)))
            taken.append((time.perf_counter() - begun) / REQUESTS)
        await queue.close()
    return min(taken)
