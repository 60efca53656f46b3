"""The fault run: thousands of requests while the cut moves, the server is killed and the link drops."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.bench.live_rig import HOME, Rig, ServerProcess, make_rig
from edge_deploy.core.errors import EdgeDeployError
from partitioner.live.options import LiveOptions
from partitioner.live.record import Recorder, RunStart, read_run
from partitioner.live.session import LiveSession
from partitioner.setting import Setting
from runtimes.shaping.link import ShapedLink, constant_link
from runtimes.shaping.proxy import ShapedProxy

__all__ = ["measure_faults"]

REQUESTS, SECONDS = 10_000, 320.0
KILLS = DROPS = 20
DOWN_S = 1.0
LEAST_UP_S = 1.0
LINK = constant_link(uplink_bps=50e6, downlink_bps=50e6, rtt_s=0.004)
THREADS = 32


def measure_faults(
    *, requests: int = REQUESTS, seconds: float = SECONDS, kills: int = KILLS, drops: int = DROPS, seed: int = 0
) -> dict[str, Any]:
    """Numbers of requests, answers, wrong answers, and of everything that was done to them."""
    rig = make_rig(feeds=requests)  # an input of its own for each: the answer to another one would be a wrong one
    HOME.mkdir(parents=True, exist_ok=True)
    file = HOME / "faults.jsonl"
    options = LiveOptions(setting=Setting(fallback_after_s=0.5), probe_idle_s=float("inf"))
    done = Counter[str]()
    with ServerProcess(rig.folder) as server, ShapedProxy(("127.0.0.1", server.port), LINK) as proxy:
        recorder = Recorder(file, _start(rig, options))
        with LiveSession(
            rig.whole,
            rig.halves,
            rig.connect_to(proxy.address),
            rig.open_half,
            first=rig.halves[0].cut,
            options=options,
            recorder=recorder,
        ) as live:
            stop, begun = threading.Event(), time.monotonic()
            trouble = [
                threading.Thread(target=_move, args=(live, rig, stop, done, seed)),
                threading.Thread(target=_kill, args=(server, stop, done, kills, seconds)),
                threading.Thread(target=_drop, args=(proxy, stop, done, drops, seconds)),
            ]
            for thread in trouble:
                thread.start()
            answers = _ask(live, rig, requests, seconds, seed, trouble[1:])
            stop.set()
            for thread in trouble:
                thread.join()
            status = live.settled_status()
            took = time.monotonic() - begun
    return {**_counted(answers, rig, file), **done, "switches": status.switches, "seconds": round(took)}


def _ask(
    live: LiveSession, rig: Rig, requests: int, seconds: float, seed: int, trouble: Sequence[threading.Thread]
) -> list[Future[dict[str, np.ndarray]]]:
    """Requests at random moments, many under way at once while the cloud is gone; on until all trouble was made."""
    moments = np.sort(np.random.default_rng(seed).uniform(0, seconds, requests))
    begun = time.monotonic()
    asked: list[Future[dict[str, np.ndarray]]] = []
    with ThreadPoolExecutor(THREADS) as threads:
        for moment in moments.tolist():
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            asked.append(threads.submit(live.infer, rig.feed(len(asked))))
        while any(thread.is_alive() for thread in trouble):
            time.sleep(seconds / requests)
            asked.append(threads.submit(live.infer, rig.feed(len(asked))))
    return asked


def _counted(asked: list[Future[dict[str, np.ndarray]]], rig: Rig, file: Path) -> dict[str, Any]:
    errors = Counter(type(one.exception()).__name__ for one in asked if one.exception() is not None)
    found = [(number, one.result()) for number, one in enumerate(asked) if one.exception() is None]
    wrong = sum(not rig.is_right(number, answer) for number, answer in found)
    run = read_run(file)
    told = Counter(one.how for one in run.requests)
    latencies = np.array([one.latency_s for one in run.requests])
    reasons = Counter(one.reason.partition(":")[0] for one in run.requests if one.reason)
    p50, p99, most = (float(np.percentile(latencies, share)) * 1e3 for share in (50, 99, 100))
    return {
        "asked": len(asked),
        "answers": len(found),
        "wrong": wrong,
        "errors": dict(errors),
        "recorded": len(run.requests),
        # Every answer is written down under the number of its request, which is its id on the wire too.
        "twice": sum(count - 1 for count in Counter(one.number for one in run.requests).values()),
        "never": len(set(range(1, len(asked) + 1)) - {one.number for one in run.requests}),
        "on the edge": told[1],
        "by the cloud": told[2],
        "fell back": told[3],
        "second attempts": sum(one.attempts > 1 for one in run.requests),
        "reasons": dict(reasons),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 1),
        "most_ms": round(most, 1),
    }


def _move(live: LiveSession, rig: Rig, stop: threading.Event, done: Counter[str], seed: int) -> None:
    """Another cut every second; all-edge is one of them."""
    rng = random.Random(seed)
    while not stop.wait(1.0):
        try:
            live.switch_to(rng.choice(rig.halves).cut)
            done["moves"] += 1
        except EdgeDeployError:
            done["moves that failed"] += 1


def _kill(server: ServerProcess, stop: threading.Event, done: Counter[str], kills: int, seconds: float) -> None:
    begun = time.monotonic()
    for number in range(kills):
        if stop.wait(max(LEAST_UP_S, begun + (number + 0.5) * seconds / kills - time.monotonic())):
            return
        server.kill()
        done["kills"] += 1
        stop.wait(0.2)
        server.start()


def _drop(proxy: ShapedProxy, stop: threading.Event, done: Counter[str], drops: int, seconds: float) -> None:
    """In turns: bytes that wait for the link, and connections that are reset."""
    begun = time.monotonic()
    for number, how in zip(range(drops), itertools.cycle(("stall", "reset")), strict=False):
        if stop.wait(max(0.0, begun + (number + 0.1) * seconds / drops - time.monotonic())):
            return
        down = ShapedLink(uplink_bps=(0.0,), downlink_bps=(0.0,), delay_s=(0.0,), on_outage=how)  # type: ignore[arg-type]  # of the two
        proxy.follow(down)
        done["drops"] += 1
        stop.wait(DOWN_S)
        proxy.follow(LINK)


def _start(rig: Rig, options: LiveOptions) -> RunStart:
    return RunStart(
        artifact=rig.whole.name,
        sha256=rig.whole.sha256,
        cloud="a server behind a shaped link",
        cuts=tuple(half.cut for half in rig.halves),
        up_bytes=tuple(0 for _ in rig.halves),
        first=rig.halves[0].cut,
        codec="raw",
        policy="another cut every second",
        switch=options.switch,
        fallback_after_s=options.setting.fallback_after_s,
    )
