"""What the live loop costs: beside the bare interpreter where all stays on the edge, and beside a bare gRPC echo."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from edge_deploy.bench.live_echo import METHOD, STREAM
from edge_deploy.bench.live_rig import Rig, ServerProcess, make_rig
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE
from edge_deploy.core.require import require
from partitioner.live.options import LiveOptions
from partitioner.live.session import LiveSession
from runtimes.session import open_session

__all__ = ["measure_overhead"]

ROUNDS = 200
EDGE_CALLS, CLOUD_CALLS = 20, 5
SMALL = "models/yardstick_cnn_int8/cnn_int8.tflite"
LARGE = "models/mlperf_tiny_ic_resnet8/pretrainedResnet_quant.tflite"


def measure_overhead(*, rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """Microseconds, medians of rounds that are run in turns, and the 95 % interval of the median difference."""
    found = {}
    for model in (SMALL, LARGE):
        rig = make_rig(model)
        with ServerProcess(rig.folder) as server:
            found[f"{rig.whole.name}, all-edge beside the bare interpreter"] = _beside_interpreter(rig, server, rounds)
            for cut in _cuts(rig):
                found[f"{rig.whole.name}, {cut} beside a bare echo"] = _beside_echo(rig, server, cut, rounds)
    return found


def _cuts(rig: Rig) -> tuple[str, ...]:
    """All-cloud, which has no head, and the cut in the middle."""
    return ALL_CLOUD, rig.halves[len(rig.halves) // 2].cut


def _live(rig: Rig, server: ServerProcess, first: str) -> LiveSession:
    """As `edge-deploy run` makes one, without a record."""
    connect = rig.connect_to(("127.0.0.1", server.port))
    return LiveSession(rig.whole, rig.halves, connect, rig.open_half, first=first, options=LiveOptions())


def _beside_interpreter(rig: Rig, server: ServerProcess, rounds: int) -> dict[str, float]:
    feed = rig.feed(0)
    interpreter = require("ai_edge_litert.interpreter", extra="run-tflite").Interpreter(
        str(rig.whole.path), num_threads=1
    )
    interpreter.allocate_tensors()
    (at,) = (detail["index"] for detail in interpreter.get_input_details())
    (out,) = (detail["index"] for detail in interpreter.get_output_details())
    (array,) = feed.values()

    def bare() -> Any:
        interpreter.set_tensor(at, array)
        interpreter.invoke()
        return interpreter.get_tensor(out)

    with _live(rig, server, ALL_EDGE) as live:
        taken = _in_turns((bare, lambda: live.infer(feed)), rounds, EDGE_CALLS)
    added, low, high = _difference(taken[1] - taken[0])
    return {
        "bare_us": _median_us(taken[0]),
        "live_us": _median_us(taken[1]),
        "added_us": added,
        "low_us": low,
        "high_us": high,
        "added_share": added / _median_us(taken[0]),
    }


def _beside_echo(rig: Rig, server: ServerProcess, cut: str, rounds: int) -> dict[str, float]:
    """What a request takes beyond its head, its tail and an echo of as many bytes.

    The echo is a call; beside it stands one over a stream that is kept open, as the live loop's is.
    """
    grpc = require("grpc", extra="run")
    feed = rig.feed(0)
    half = next(half for half in rig.halves if half.cut == cut)
    head = rig.open_half(half) if half.head is not None else None
    tail = open_session(rig.folder / cut / "tail", trusted=True)
    names = [info.name for info in tail.signature.inputs]
    with _live(rig, server, cut) as live:
        live.infer(feed)
        before = live.settled_status()
        live.infer(feed)
        after = live.settled_status()
        up, down = after.up_bytes - before.up_bytes, after.down_bytes - before.down_bytes
        boundary = {**feed, **({} if head is None else head.run(feed))}
        arrays = {name: boundary[name] for name in names}
        echo = subprocess.Popen(
            [sys.executable, "-m", "edge_deploy.bench.live_echo", str(down)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert echo.stdout is not None and echo.stdin is not None
        try:
            with grpc.insecure_channel(f"127.0.0.1:{int(echo.stdout.readline())}") as channel:
                call, message = channel.unary_unary(METHOD), bytes(up)
                call(message)
                waiting: SimpleQueue[bytes | None] = SimpleQueue()
                stream = channel.stream_stream(STREAM)(iter(waiting.get, None))

                def over_the_stream() -> Any:
                    waiting.put(message)
                    return next(stream)

                over_the_stream()
                ways: list[Callable[[], Any]] = [
                    lambda: call(message),
                    lambda: live.infer(feed),
                    lambda: None if head is None else head.run(feed),
                    lambda: tail.run(arrays),
                    over_the_stream,
                ]
                taken = _in_turns(ways, rounds, CLOUD_CALLS)
                waiting.put(None)
        finally:
            echo.stdin.close()
            echo.wait()
    added, low, high = _difference(taken[1] - taken[0] - taken[2] - taken[3])
    return {
        "up_bytes": up,
        "down_bytes": down,
        "echo_us": _median_us(taken[0]),
        "streamed_echo_us": _median_us(taken[4]),
        "live_us": _median_us(taken[1]),
        "head_us": _median_us(taken[2]),
        "tail_us": _median_us(taken[3]),
        "added_us": added,
        "low_us": low,
        "high_us": high,
        "beside_streamed_us": _difference(taken[1] - taken[4] - taken[2] - taken[3])[0],
    }


def _in_turns(ways: list[Callable[[], Any]] | tuple[Callable[[], Any], ...], rounds: int, calls: int) -> np.ndarray:
    """Seconds of a call, by way and round; shape (ways, rounds)."""
    taken = np.empty((len(ways), rounds))
    for number in range(rounds):
        order = range(len(ways)) if number % 2 else reversed(range(len(ways)))
        for place in order:
            way = ways[place]
            begun = time.perf_counter()
            for _ in range(calls):
                way()
            taken[place, number] = (time.perf_counter() - begun) / calls
    return taken


def _difference(seconds: np.ndarray) -> tuple[float, float, float]:
    """Median and the 95 % interval of it, microseconds."""
    ordered = np.sort(seconds) * 1e6
    half = int(0.98 * np.sqrt(len(ordered)))  # ranks by the normal approximation
    middle = len(ordered) // 2
    low, high = ordered[max(middle - half, 0)], ordered[min(middle + half, len(ordered) - 1)]
    return float(np.median(ordered)), float(low), float(high)


def _median_us(seconds: np.ndarray) -> float:
    return float(np.median(seconds)) * 1e6
