"""`make bench-live_tuning`: DeepRecSched's search for batches against an exhaustive one, and its choice in real time.

The search runs over measured times of inferences and of a request's way through the queue, in virtual time; then
requests really arrive, with exponential gaps, at a queue with the setting it chose, and their 95th percentile is put
beside the promised one.

    python -m edge_deploy.bench.live_tuning [MODEL.tflite]
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edge_deploy.bench.live_server import cut_model, small_model
from edge_deploy.bench.rows import markdown
from edge_deploy.core.cut import ALL_CLOUD
from runtimes.serving.batching import Batching, Queue, Turns
from runtimes.serving.handling import measure_handling
from runtimes.serving.lane import Lane, random_rows, sizes_of
from runtimes.serving.offers import Offer, read_offer
from runtimes.serving.queue_model import Load, QueueModel, Setting, measure_service
from runtimes.serving.tuning import Tuned, rate_grid, search_all, tune

MOST_ROWS = 32
LIMITS_S = (0.005, 0.025)
WAIT_SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
REQUESTS = 800
# Rows of a request: one, as an edge sends them, and a recommender's candidates (log-normal, as in DeepRecInfra).
LOADS = {
    "one row": (1,),
    "log-normal, median 12": tuple(int(n) for n in np.random.default_rng(0).lognormal(2.5, 0.5, 200).clip(1, 64)),
}
LIVE_S, LIVE_SHARE = 3.0, 0.7


def measure_tuning(model: Path | None = None) -> list[dict[str, object]]:
    """One row for each load and limit."""
    folder, halves, _ = cut_model(model or small_model())
    with folder:
        offer = read_offer(halves / ALL_CLOUD / "tail")
        sizes = sizes_of(offer, MOST_ROWS)
        lane = Lane(offer, sizes)
        feeds = {size: random_rows(offer.signatures[0].inputs, size) for size in sizes}
        times = measure_service(lambda size: lane(feeds[size]), sizes, clock=time.perf_counter)
        rows = []
        for name, request_rows in LOADS.items():
            for limit_s in LIMITS_S:
                rows.append(
                    {"load": name, "limit_ms": limit_s * 1e3, **_row(offer, sizes, times, request_rows, limit_s)}
                )
        return rows


def _row(
    offer: Offer, sizes: tuple[int, ...], times: dict[int, list[float]], request_rows: tuple[int, ...], limit_s: float
) -> dict[str, object]:
    handling_s, mean_rows = measure_handling(), float(np.mean(request_rows))
    queue = QueueModel(times, load=Load(rows=request_rows, requests=REQUESTS), handling_s=handling_s)
    row_s = min(float(np.median(values)) / size for size, values in times.items())
    capacity = 1 / (row_s * mean_rows + handling_s)
    rates, waits_s = rate_grid(capacity), [limit_s * share for share in WAIT_SHARES]
    begun = time.perf_counter()
    found = tune(queue.p95_s, rows=sizes, waits_s=waits_s, limit_s=limit_s, rates=rates)
    took_s = time.perf_counter() - begun
    best = search_all(queue.p95_s, rows=sizes, waits_s=waits_s, limit_s=limit_s, rates=rates)
    told: dict[str, object] = {
        "found": _told(found),
        "best": _told(best),
        "share_of_best": round(found.rate_rps / best.rate_rps, 3) if best.rate_rps else None,
        "search_s": round(took_s, 2),
    }
    if found.rate_rps:
        rate = LIVE_SHARE * found.rate_rps
        p95_s = asyncio.run(_live(offer, sizes, found.setting, rate, request_rows))
        told["live_rate_rps"] = round(rate)
        told["live_p95_ms"] = round(p95_s * 1e3, 2)
        told["promised_p95_ms"] = round(queue.p95_s(found.setting, rate) * 1e3, 2)
    return told


def _told(tuned: Tuned) -> str:
    setting = tuned.setting
    return f"{setting.rows} rows, {setting.wait_s * 1e3:.2g} ms: {tuned.rate_rps:.0f}/s by {tuned.probes} probes"


async def _live(
    offer: Offer, sizes: tuple[int, ...], setting: Setting, rate_rps: float, request_rows: tuple[int, ...]
) -> float:
    """The 95th percentile of requests that really arrive."""
    rng, loop = np.random.default_rng(1), asyncio.get_running_loop()
    lane = Lane(offer, sizes)
    for size in sizes:
        lane(random_rows(offer.signatures[0].inputs, size))
    gaps = rng.exponential(1 / rate_rps, int(LIVE_S * rate_rps))
    counts = rng.choice(np.array(request_rows), len(gaps))
    feeds = {int(n): random_rows(offer.signatures[0].inputs, int(n)) for n in set(counts.tolist())}
    latencies: list[float] = []
    with ThreadPoolExecutor(1) as threads:
        batching = Batching(rows=setting.rows, wait_s=setting.wait_s, waiting=len(gaps) * 64)
        queue = Queue([lane], batching=batching, threads=threads, turns=Turns(1))

        async def ask(due_s: float, rows: int) -> None:
            await queue.infer(feeds[rows], rows=rows, deadline_s=due_s + 3600)
            latencies.append(loop.time() - due_s)

        due_s, asked = loop.time(), []
        for gap, rows in zip(gaps.tolist(), counts.tolist(), strict=True):
            due_s += gap
            left_s = due_s - loop.time()
            await asyncio.sleep(max(0.0, left_s))
            asked.append(asyncio.ensure_future(ask(due_s, rows)))
        await asyncio.gather(*asked)
        await queue.close()
    lane.close()
    return float(np.percentile(latencies, 95))


def main() -> None:
    """Print the rows."""
    rows = measure_tuning(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]))


if __name__ == "__main__":
    main()
