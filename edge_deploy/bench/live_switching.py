"""Three ways of switching: how long a switch takes, how long requests wait for it, and what memory it needs."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

from edge_deploy.bench.live_rig import Rig, ServerProcess, make_rig
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from partitioner.live.options import LiveOptions
from partitioner.live.session import LiveSession
from partitioner.live.switches import Switched
from partitioner.setting import Setting

__all__ = ["measure_switching"]

WAYS = ("pause-and-reload", "load-beside", "warm-standby")
ROUNDS = 10


def measure_switching(*, rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """By way: milliseconds of a switch and of the stop, the longest request meanwhile, and bytes of loaded halves."""
    rig = make_rig()
    with ServerProcess(rig.folder) as server:
        return {way: _measure(rig, server, way, rounds) for way in WAYS}


def _measure(rig: Rig, server: ServerProcess, way: str, rounds: int) -> dict[str, Any]:
    inner = [half.cut for half in rig.halves if half.cut not in (ALL_CLOUD, ALL_EDGE)]
    two = (inner[len(inner) // 3], inner[2 * len(inner) // 3])
    # Warm are the two that are switched between; the other ways load each time.
    options = LiveOptions(setting=Setting(warm=two), switch=way, fallback=way != "pause-and-reload")
    connect = rig.connect_to(("127.0.0.1", server.port))
    switched: list[Switched] = []
    with LiveSession(rig.whole, rig.halves, connect, rig.open_half, first=two[0], options=options) as live:
        stop, failed = threading.Event(), []
        latencies: list[float] = []

        def ask() -> None:
            number = 0
            while not stop.is_set():
                begun = time.perf_counter()
                if not rig.is_right(number, live.infer(rig.feed(number))):
                    failed.append(number)
                latencies.append(time.perf_counter() - begun)
                number += 1

        asking = threading.Thread(target=ask)
        asking.start()
        for number in range(2 * rounds):
            if stop.wait(0.1):
                break
            done = live.switch_to(two[1 - number % 2])
            if done is not None:
                switched.append(done)
        stop.set()
        asking.join()
        status = live.settled_status()
    return {
        "switches": len(switched),
        "done as": sorted({one.way for one in switched}),
        "took_ms": round(statistics.median(one.took_s for one in switched) * 1e3, 3),
        "stopped_ms": round(statistics.median(one.stopped_s for one in switched) * 1e3, 4),
        "longest_stop_ms": round(max(one.stopped_s for one in switched) * 1e3, 3),
        "requests": len(latencies),
        "wrong": len(failed),
        "p50_ms": round(statistics.median(latencies) * 1e3, 3),
        "longest_ms": round(max(latencies) * 1e3, 2),
        "lost": status.answered["lost"],
        "warm": len(status.warm),
    }
