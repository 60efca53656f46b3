"""The parts of a sweep that compute with Keras; each runs in a child process and returns plain values."""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from device_tests.contention import cpu_load, memory_load, usable_cores
from device_tests.split_measure import SplitRig
from edge_deploy.core.clock import SystemClock
from edge_deploy.core.serde import to_json
from edge_deploy.zoo.adaptive_dnn_nets import build_net
from edge_deploy.zoo.keras_graph import keras_graph
from edge_deploy.zoo.keras_layers import halves_of, one_thread, random_image, time_layers
from partitioner.study.published_cuts import published_cuts

__all__ = ["measure_pairs", "measure_slowdown", "profile_net"]

WIRE_PARTS = ("edge_s", "encode_s", "uplink_s", "cloud_s", "downlink_s")


def profile_net(name: str, *, seed: int, rounds: int) -> dict[str, Any]:
    """The graph, the median seconds of each layer and of a whole pass, and what ran them."""
    kernels = one_thread()
    model = build_net(name, seed=seed)
    graph = keras_graph(model)
    layer_s, whole_s = time_layers(model, graph, clock=SystemClock(), rounds=rounds, seed=seed)
    return {
        "graph": to_json(graph),
        "layer_s": layer_s,
        "whole_s": whole_s,
        "kernels": kernels,
    }


def measure_slowdown(
    name: str, *, seed: int, cpu_shares: list[float], memory_shares: list[float], rounds: int, passes: int
) -> list[dict[str, Any]]:
    """Seconds of a pass through a net with and without contention, in turns: `LoadPoint`s as plain values."""
    one_thread()
    model = build_net(name, seed=seed)
    graph = keras_graph(model)
    core = usable_cores()[:1]
    points = []

    def mean_s() -> float:
        _, whole_s = time_layers(model, graph, clock=SystemClock(), rounds=passes, seed=seed)
        return whole_s

    def seconds_under(load: Callable[[], AbstractContextManager[Any]]) -> float:
        with load():
            return mean_s()

    def work() -> None:
        with _kept_on(core):
            mean_s()
            for number in range(rounds):
                for what, shares in (("cpu", cpu_shares), ("memory", memory_shares)):
                    for share in shares:
                        idle_s = mean_s()
                        held = (lambda s=share: cpu_load(s, cores=core)) if what == "cpu" else (lambda s=share: memory_load(s))  # noqa: E501  # fmt: skip
                        seconds = seconds_under(held)
                        points.append(
                            {"what": what, "at": share, "round": number, "seconds": seconds, "idle_s": idle_s}
                        )

    _in_thread(work)
    return points


def measure_pairs(name: str, *, seed: int, pairs: list[dict[str, Any]], log: str, repeats: int) -> int:
    """Run requests of each pair over the shaped link and add a line to `log`; returns how many.

    Args:
        pairs: Objects with number, cut (its place) and conditions; those of one cut should stand together.
        log: JSON lines; what was written stays when the process is killed.
    """
    one_thread()
    model = build_net(name, seed=seed)
    graph = keras_graph(model)
    cuts = published_cuts(graph, name)
    image = random_image(graph, seed=seed)
    done = 0
    with Path(log).open("a", encoding="utf-8") as file:
        # A run that was killed may have left half a line, which must not swallow the next one.
        file.write("\n")
        for place in dict.fromkeys(pair["cut"] for pair in pairs):
            head, tail = halves_of(model, graph, cuts[place])
            # Warm, so that the first request over a slow link need not be thrown away.
            crossing = head(image) if head else image
            if tail:
                tail(crossing)
            with SplitRig(head, tail) as rig:
                for pair in pairs:
                    if pair["cut"] != place:
                        continue
                    given = pair["conditions"]
                    found = rig.measure(
                        image,
                        uplink_bps=given["uplink_bps"],
                        downlink_bps=given["downlink_bps"],
                        rtt_s=given["rtt_s"],
                        edge_load=given.get("edge_load", 0.0),
                        cloud_load=given.get("cloud_load", 0.0),
                        repeats=repeats,
                        warm_up=0,
                    )
                    line = {
                        "number": pair["number"],
                        "cut": place,
                        "conditions": given,
                        "measured_s": list(found.total_s),
                        "parts_s": {part: statistics.median(getattr(found, part)) for part in WIRE_PARTS},
                    }
                    file.write(json.dumps(line) + "\n")
                    file.flush()
                    done += 1
    return done


@contextmanager
def _kept_on(cores: tuple[int, ...]) -> Iterator[None]:
    import os

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    yield


def _in_thread(work: Callable[[], None]) -> None:
    """Affinity is a thread's: the thread ends with the work, and the process keeps its cores."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # raised again in the calling thread
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
