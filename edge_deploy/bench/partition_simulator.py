"""Requests a second of the simulator, part of `make bench-partition`.

FIFO edge queue, one link, a cloud of 4 workers; 22 cuts, 50 requests a second, a decision every second, a generated
link. Decisions are part of the time; compiling and writing Parquet are stated apart. The plain loop is the same kernel
as Python runs it. Medians of rounds in which all take turns.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge_deploy.bench.rows import markdown
from edge_deploy.core.conditions import Trace
from partitioner.controller import train
from partitioner.cut_table import CutTable
from partitioner.policy import Policy, Training
from partitioner.setting import Setting
from partitioner.simulator.arrivals import poisson
from partitioner.simulator.compiled import can_compile
from partitioner.simulator.parquet import RequestWriter, can_write
from partitioner.simulator.simulate import simulate
from partitioner.simulator.world import World
from partitioner.traces.generate import generate

__all__ = ["main", "measure"]

RATE_HZ = 50.0
CROSSING = "fixed:008"
MANY, FEWER, PLAIN = 1_000_000, 200_000, 20_000
ROUNDS = 5
# Requests a second.
WANTED = {"fixed": 1_000_000, "adaptive": 500_000, "learner": 20_000}


def measure(*, rounds: int = ROUNDS) -> dict[str, object]:
    """By what was simulated: requests a second, how many are wanted, and the ratio to the plain loop."""
    setting = Setting(rate_hz=RATE_HZ, fallback_after_s=1.0)
    world = World(setting=setting)
    batched = dataclasses.replace(world, batch_limit=8, batch_wait_s=0.005)
    trace = _link(MANY / RATE_HZ + 1.0)
    arrivals = poisson(RATE_HZ, trace.end_s, 0)[:MANY]
    training = Training(traces=(_link(600.0, seed=1),), setting=setting)
    table = _table()
    policies = {
        name: train(name, table, training)
        for name in ("all-edge", CROSSING, "always-best", "threshold-table", "hysteresis", "predictive", "learned")
    }
    first_s = _seconds(lambda: simulate(policies[CROSSING], trace, arrivals[:1000], world)) if can_compile() else 0.0
    for each in (world, batched):
        simulate(policies["learned"], trace, arrivals[:1000], each)
    tasks: list[tuple[str, str, int, Callable[[], object]]] = []

    def add(title: str, kind: str, policy: Policy, count: int, where: World = world, plain: bool = False) -> None:
        requests = arrivals[:count]
        compiled = False if plain else None
        tasks.append((title, kind, count, lambda: simulate(policy, trace, requests, where, compiled=compiled)))

    add("all-edge", "fixed", policies["all-edge"], MANY)
    add("one cut, every request crosses", "fixed", policies[CROSSING], MANY)
    for name in ("always-best", "threshold-table", "hysteresis", "predictive"):
        add(name, "adaptive", policies[name], MANY)
    add("learned, sees every request", "learner", policies["learned"], FEWER)
    add("one cut, batches of up to 8", "", policies[CROSSING], MANY, batched)
    add("hysteresis, batches of up to 8", "", policies["hysteresis"], MANY, batched)
    add("plain loop: one cut", "", policies[CROSSING], PLAIN, plain=True)
    add("plain loop: hysteresis", "", policies["hysteresis"], PLAIN, plain=True)
    taken = np.array([[_seconds(task) for *_, task in tasks] for _ in range(rounds)])
    speeds = {title: count / float(np.median(taken[:, at])) for at, (title, _, count, _) in enumerate(tasks)}
    found: dict[str, object] = {}
    for title, kind, count, _ in tasks:
        row: dict[str, object] = {"requests": count, "requests_per_s": round(speeds[title])}
        if kind:
            row["wanted_per_s"] = WANTED[kind]
        if kind in ("fixed", "adaptive"):
            loop = "plain loop: one cut" if kind == "fixed" else "plain loop: hysteresis"
            row["times_the_plain_loop"] = round(speeds[title] / speeds[loop], 1)
        found[title] = row
    # Compiled, or read from numba's cache.
    found["first_call_s"] = round(first_s, 2) if can_compile() else "numba is not installed: all ran as the plain loop"
    if can_write():
        found["parquet_rows_per_s"] = round(_writing(policies[CROSSING], trace, arrivals[:FEWER], world))
    return found


def _seconds(task: Callable[[], object]) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def _writing(policy: Policy, trace: Trace, arrivals: np.ndarray, world: World) -> float:
    served = simulate(policy, trace, arrivals, world)
    with tempfile.TemporaryDirectory() as folder:

        def write() -> None:
            with RequestWriter(Path(folder) / "requests.parquet") as writer:
                writer.write("bench", served)

        write()
        return len(arrivals) / _seconds(write)


def _table(count: int = 22) -> CutTable:
    share = np.linspace(0.0, 1.0, count)
    crosses = np.arange(count) < count - 1
    return CutTable(
        cuts=("all-cloud", *(f"{i:03d}" for i in range(1, count - 1)), "all-edge"),
        codec="raw",
        edge_s=0.014 * share,
        cloud_s=0.001 * (1 - share),
        encode_s=np.zeros(count),
        decode_s=np.zeros(count),
        up_bytes=np.where(crosses, 12_000 * np.exp(-4 * share), 0),
        down_bytes=np.where(crosses, 100, 0),
        edge_bytes=np.zeros(count),
        exit_share=np.zeros(count),
        crosses=crosses,
    )


def _link(seconds: float, seed: int = 0) -> Trace:
    return generate(
        "markov-link:low_mbit_s=4,high_mbit_s=60+outages+rtt-process:median_ms=8,floor_ms=2", seed=seed, seconds=seconds
    )


def main() -> None:
    """Print the numbers as a table."""
    found = measure()
    rows = [
        (title, *(row.get(name, "") for name in ("requests", "requests_per_s", "wanted_per_s", "times_the_plain_loop")))
        for title, row in found.items()
        if isinstance(row, dict)
    ]
    print(markdown(("simulated", "requests", "requests/s", "wanted", "over the plain loop"), rows))
    for name in ("first_call_s", "parquet_rows_per_s"):
        print(f"{name}: {found.get(name, '')}")


if __name__ == "__main__":
    main()
