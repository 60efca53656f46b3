"""`make bench-live_clients`: 1,000 clients, each over a connection of its own, each one request a second, for a minute.

The clients share one process and one core, the server has the other; every answer is compared.

    python -m edge_deploy.bench.live_clients [MODEL.tflite] [--clients N] [--seconds S] [--workers N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from pathlib import Path

import numpy as np

from edge_deploy.bench.live_server import BenchServer, cut_model, feed, running_server, segment_of, small_model
from edge_deploy.bench.rows import markdown
from runtimes.serving.async_client import AsyncRemoteClient
from runtimes.serving.errors import CloudError
from runtimes.serving.open_files import allow_open_files

DEADLINE_S = 10.0
CONNECTING_AT_ONCE = 50
WRONG = "wrong answer"


class Tally:
    """What became of the requests."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.late_s: list[float] = []
        self.failures: dict[str, int] = {}

    def failed(self, what: str) -> None:
        """Count one that did not end in the right answer."""
        self.failures[what] = self.failures.get(what, 0) + 1


def measure_clients(
    model: Path | None = None, *, clients: int = 1000, seconds: float = 60.0, workers: int = 1
) -> dict[str, object]:
    """Latency percentiles in milliseconds, failures by kind, and how late the clients themselves were."""
    allow_open_files(clients)
    with contextlib.ExitStack() as stack:
        folder, halves, cut = cut_model(model or small_model())
        stack.enter_context(folder)
        server = stack.enter_context(running_server([halves], "--workers", str(workers)))
        tally = asyncio.run(_load(server, cut, clients=clients, seconds=seconds))
        memory = server.resident_bytes()
    p50, p95, p99, slowest = np.percentile(np.array(tally.seconds) * 1e3, (50, 95, 99, 100))
    return {
        "clients": clients,
        "seconds": seconds,
        "right_answers": len(tally.seconds) - tally.failures.get(WRONG, 0),
        "errors": tally.failures,
        "median_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
        "slowest_ms": round(slowest, 2),
        "clients_late_p99_ms": round(float(np.percentile(np.array(tally.late_s) * 1e3, 99)), 2),
        "workers": workers,
        "server_resident_mb": round(memory / 1e6),
    }


def main() -> None:
    """Print the row."""
    options = argparse.ArgumentParser()
    options.add_argument("model", nargs="?", type=Path)
    options.add_argument("--clients", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--workers", type=int, default=1)
    given = options.parse_args()
    row = measure_clients(given.model, clients=given.clients, seconds=given.seconds, workers=given.workers)
    print(markdown(list(row), [list(row.values())]))


async def _load(server: BenchServer, cut: str, *, clients: int, seconds: float) -> Tally:
    artifact = server.names[0].partition("@")[0]
    arrays = feed(await asyncio.to_thread(segment_of, server.endpoint, artifact, cut))
    tally, gate = Tally(), asyncio.Semaphore(CONNECTING_AT_ONCE)
    everybody = [AsyncRemoteClient(server.endpoint, artifact=artifact) for _ in range(clients)]
    right = await everybody[0].infer(arrays, deadline_s=DEADLINE_S, cut=cut)

    async def connected(client: AsyncRemoteClient) -> None:
        async with gate:
            await client.is_ready(deadline_s=DEADLINE_S)

    await asyncio.gather(*map(connected, everybody))
    rng = np.random.default_rng(0)
    begin = time.perf_counter() + 0.5

    async def ask_every_second(client: AsyncRemoteClient, phase_s: float) -> None:
        for n in range(int(seconds)):
            due = begin + phase_s + n
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent = time.perf_counter()
            tally.late_s.append(sent - due)
            try:
                answer = await client.infer(arrays, deadline_s=DEADLINE_S, cut=cut)
            except CloudError as error:
                tally.failed(type(error).__name__)
                continue
            tally.seconds.append(time.perf_counter() - sent)
            if any(not np.array_equal(answer[name], array) for name, array in right.items()):
                tally.failed(WRONG)

    phases = rng.random(clients)
    await asyncio.gather(*(ask_every_second(*each) for each in zip(everybody, phases, strict=True)))
    await asyncio.gather(*(client.close() for client in everybody))
    return tally


if __name__ == "__main__":
    main()
