"""`make bench-live_hostile`: 10,000 hostile messages, stalled requests, half-open connections, wrong digests.

An honest client asks all the time; the server must answer it rightly, keep its processes and not grow.

    python -m edge_deploy.bench.live_hostile [MODEL.tflite | HALVES] [--messages N]
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.bench.live_server import BenchServer, cut_model, feed, running_server, segment_of, small_model
from edge_deploy.bench.rows import markdown
from edge_deploy.core.cut import ALL_CLOUD
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import wire_name
from runtimes.serving.errors import CloudError, CloudRefused
from runtimes.serving.exchange import write_request
from runtimes.serving.hostile_peers import connect, mutated
from runtimes.serving.messages import METHODS, STREAM, message, method_path

DEADLINE_S = 30.0
PART = 1000  # messages between two looks at the memory
STALLED, HALF_OPEN, WRONG_DIGESTS = 200, 300, 200
WARM_UP = 8000
STREAMED = 4  # one in so many goes over a stream


class Honest:
    """Asks all the time, compares every answer, and keeps how long it took."""

    def __init__(self, server: BenchServer, artifact: str, cut: str) -> None:
        self._client = RemoteClient(server.endpoint, artifact=artifact)
        self._cut, self._stop = cut, threading.Event()
        self._feed = feed(segment_of(server.endpoint, artifact, cut))
        self._right = self._client.infer(self._feed, deadline_s=DEADLINE_S, cut=cut)
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _ask(self) -> None:
        while not self._stop.wait(0.02):
            begun = time.perf_counter()
            try:
                found = self._client.infer(self._feed, deadline_s=DEADLINE_S, cut=self._cut)
            except CloudError as error:
                self.failures.append(str(error))
                continue
            self.seconds.append(time.perf_counter() - begun)
            if any(not np.array_equal(found[name], array) for name, array in self._right.items()):
                self.failures.append("a wrong answer")


def measure_hostile(model: Path | None = None, *, messages: int = 10_000) -> dict[str, object]:
    """What became of the messages, the connections, the honest client, the processes and their memory."""
    with contextlib.ExitStack() as stack:
        folder, halves, cut = cut_model(model or small_model())
        stack.enter_context(folder)
        server = stack.enter_context(running_server([halves]))
        return _run(server, server.names[0].partition("@")[0], cut, messages)


def main() -> None:
    """Print what became of the server."""
    options = argparse.ArgumentParser()
    options.add_argument("model", nargs="?", type=Path)
    options.add_argument("--messages", type=int, default=10_000)
    given = options.parse_args()
    print(markdown(("what", "became"), list(measure_hostile(given.model, messages=given.messages).items())))


def _run(server: BenchServer, artifact: str, cut: str, messages: int) -> dict[str, object]:
    workers = server.worker_ids()
    honest = Honest(server, artifact, cut)
    # Allocators grow to their working size over the first thousands; what comes after must stay flat.
    _send(server, artifact, WARM_UP, seed=1)
    _stalled(server)
    _half_open(server, seed=1)
    memory = [server.resident_bytes()]
    statuses: dict[str, int] = {}
    slowest = 0.0
    for part in range(-(-messages // PART)):
        found, took = _send(server, artifact, min(PART, messages), seed=100 + part)
        statuses = {name: statuses.get(name, 0) + found.get(name, 0) for name in {*statuses, *found}}
        slowest = max(slowest, took)
        memory.append(server.resident_bytes())
    stalled, stalled_s = _stalled(server)
    ended = _half_open(server, seed=2)
    refused = _wrong_digests(server, artifact, cut)
    memory.append(server.resident_bytes())
    honest.close()
    p50, p99 = np.percentile(honest.seconds, (50, 99)) * 1e3
    return {
        "messages": sum(statuses.values()),
        "statuses": _told(statuses),
        "slowest_answer_s": round(slowest, 3),
        "stalled_requests": STALLED,
        "stalled_became": f"{_told(stalled)} within {stalled_s:.1f} s",
        "half_open_connections": HALF_OPEN,
        "half_open_ended": ended,
        "wrong_digests": WRONG_DIGESTS,
        "wrong_digests_refused": refused,
        "honest_answers": len(honest.seconds),
        "honest_failures": honest.failures[:10],
        "honest_median_ms": round(p50, 2),
        "honest_p99_ms": round(p99, 2),
        "processes": "the same throughout" if server.worker_ids() == workers else "one died",
        "resident_mb": [round(each / 1e6, 1) for each in memory],
    }


def _send(server: BenchServer, artifact: str, count: int, *, seed: int) -> tuple[dict[str, int], float]:
    """Statuses of hostile messages, and the seconds of the slowest answer."""
    import grpc

    rng, methods = np.random.default_rng(seed), list(METHODS)
    arrays = feed(segment_of(server.endpoint, artifact, ALL_CLOUD))
    valid = write_request(arrays, model=wire_name(artifact, ALL_CLOUD), version="", request_id="7")
    statuses: dict[str, int] = {}
    slowest = 0.0
    with grpc.insecure_channel(server.endpoint.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        streamed = count // STREAMED
        for status in _over_a_stream(channel, [mutated(rng, valid) for _ in range(streamed)]):
            statuses[status] = statuses.get(status, 0) + 1
        for n in range(count - streamed):
            method = "ModelInfer" if n % 4 else methods[int(rng.integers(len(methods)))]
            begun = time.perf_counter()
            try:
                channel.unary_unary(method_path(method))(mutated(rng, valid), timeout=DEADLINE_S)
                status = "OK"
            except grpc.RpcError as error:
                status = error.code().name
            slowest = max(slowest, time.perf_counter() - begun)
            statuses[status] = statuses.get(status, 0) + 1
    return statuses, slowest


def _over_a_stream(channel: Any, messages: list[bytes]) -> Iterator[str]:
    """Statuses of messages that come one after the other over one stream."""
    answers = channel.stream_stream(method_path(STREAM))(iter(messages), timeout=DEADLINE_S)
    for raw in answers:
        told = message("ModelStreamInferResponse").FromString(raw)
        yield told.error_message.partition(":")[0] or "OK"


def _told(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in sorted(statuses.items(), key=lambda each: -each[1]))


def _stalled(server: BenchServer) -> tuple[dict[str, int], float]:
    """Statuses of requests, and of streams, that never come to their message; the seconds until all had one."""
    import grpc

    stop = threading.Event()

    def nothing() -> Iterator[bytes]:
        stop.wait(DEADLINE_S)
        yield from ()

    begun = time.perf_counter()
    statuses: dict[str, int] = {}
    with grpc.insecure_channel(server.endpoint.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        calls = [channel.stream_unary(method_path("ModelInfer")).future(nothing()) for _ in range(STALLED // 2)]
        streams = [channel.stream_stream(method_path(STREAM))(nothing(), timeout=DEADLINE_S) for _ in calls]
        for call in calls:
            name = call.exception(timeout=DEADLINE_S).code().name
            statuses[name] = statuses.get(name, 0) + 1
        for stream in streams:
            name = f"stream: {stream.code().name}"
            statuses[name] = statuses.get(name, 0) + 1
        took = time.perf_counter() - begun
        stop.set()
    return statuses, took


def _half_open(server: BenchServer, *, seed: int) -> int:
    """How many connections that say nonsense, or nothing, the server ended by itself."""
    rng = np.random.default_rng(seed)
    peers = [connect(rng, (server.endpoint.host, server.endpoint.port)) for _ in range(HALF_OPEN)]
    return sum(_ends(peer) for peer in peers if peer is not None)


def _ends(peer: socket.socket) -> bool:
    peer.settimeout(DEADLINE_S)
    try:
        while peer.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        peer.close()
    return True


def _wrong_digests(server: BenchServer, artifact: str, cut: str) -> int:
    """How many requests for another version were refused."""
    arrays = feed(segment_of(server.endpoint, artifact, cut))
    refused = 0
    with RemoteClient(server.endpoint, artifact=artifact, digest="00" * 32) as client:
        for _ in range(WRONG_DIGESTS):
            try:
                client.infer(arrays, deadline_s=DEADLINE_S, cut=cut)
            except CloudRefused:
                refused += 1
    return refused


if __name__ == "__main__":
    main()
