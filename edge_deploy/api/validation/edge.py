"""The edge's process: one order as JSON a line in, one answer a line out; opens live sessions and plays requests."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.api.run import RunRequest, live
from edge_deploy.core.errors import BadInput, EdgeDeployError, error_to_json
from partitioner.live.halves import read_halves, read_whole
from partitioner.live.options import LiveOptions
from partitioner.live.session import LiveSession
from partitioner.setting import Setting
from runtimes.serving.client import RemoteClient
from runtimes.serving.contracts import Endpoint

__all__ = ["Edge", "main"]

AT_ONCE = 64
PING_S = 5.0
FEW = 8
# The last part of a wait is spent looking at the clock: a sleeping thread wakes up too late.
SPIN_S = 0.0002


class Edge:
    """What the orders work on.

    Args:
        given: artifact, halves, host, port, token, inputs (npz with one array an input, samples first), codec,
            fallback_s.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._cloud = Endpoint(host=given["host"], port=given["port"], token=given["token"])
        whole = read_whole(given["artifact"])
        with np.load(given["inputs"], allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        size = len(next(iter(arrays.values())))
        self._feeds = [{name: array[i] for name, array in arrays.items()} for i in range(size)]
        self._session: LiveSession | None = None
        self._client = RemoteClient(self._cloud, artifact=whole.name, digest=whole.sha256)
        self.cuts = [half.cut for half in read_halves(whole, Path(given["halves"]))]
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="request")

    def ping(self, *, count: int) -> float:
        """Median round trip of the smallest message, seconds."""
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            self._client.is_ready(deadline_s=PING_S)
            taken.append(time.perf_counter() - begun)
        return statistics.median(taken)

    def open(self, *, cut: str, policy: str, record: str) -> list[str]:
        """Open a session that stays at a cut, or is moved by a policy; ids of its cuts."""
        fallback_s = self._given["fallback_s"]
        options = LiveOptions(
            setting=Setting(fallback_after_s=fallback_s if fallback_s > 0 else math.inf),
            codec=self._given["codec"],
            fallback=fallback_s > 0,
            # Probes beside the requests are part of a session that moves the cut, and of no other.
            probe_idle_s=LiveOptions().probe_idle_s if policy else math.inf,
        )
        request = RunRequest(
            artifact=self._given["artifact"],
            cloud=self._cloud,
            halves=self._given["halves"],
            cut=cut,
            policy=policy or "hysteresis",
            options=options,
            record=record,
        )
        self._session = live(request)
        self._session.infer(self._feeds[0])
        return self.cuts

    def play(self, *, begin_s: float, arrivals: Sequence[float]) -> list[tuple[float, float]]:
        """Requests at these moments after `begin_s` of the monotonic clock: when each was made, and its latency.

        Latency is infinite for one without an answer.
        """
        waiting: list[tuple[float, Future[float]]] = []
        for number, arrival in enumerate(arrivals):
            made = _wait_until(begin_s + arrival)
            waiting.append((made - begin_s, self._threads.submit(self._ask, number, made)))
        return [(made, future.result()) for made, future in waiting]

    def alone(self, *, count: int, rate_hz: float, most_s: float) -> list[float]:
        """Latencies of requests as `play` makes them, none of which waits for another.

        Args:
            rate_hz: So often at most; at random moments, so that they meet every phase of what is periodic.
            most_s: After so long no more are made; a few there are always.
        """
        random = np.random.default_rng(0)
        until = time.perf_counter() + most_s
        taken: list[float] = []
        while len(taken) < FEW or (len(taken) < count and time.perf_counter() < until):
            # A quota that the last request used up is full again before the next one.
            pause_s = max(random.exponential(1 / rate_hz), taken[-1] if taken else 0.0)
            made = _wait_until(time.perf_counter() + pause_s)
            taken.append(self._threads.submit(self._ask, len(taken), made).result())
        return taken

    def _ask(self, number: int, made_s: float) -> float:
        session = self._session
        if session is None:
            raise BadInput("validation: no session is open.")
        try:
            session.infer(self._feeds[number % len(self._feeds)])
        except EdgeDeployError:
            return math.inf
        return time.perf_counter() - made_s

    def close(self) -> None:
        """End the session; its record is written."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _wait_until(due: float) -> float:
    if (left := due - SPIN_S - time.perf_counter()) > 0:
        time.sleep(left)
    while time.perf_counter() < due:
        pass
    return time.perf_counter()


def main() -> None:
    """Answer orders until the input ends; the first line is what the edge is given."""
    edge = Edge(json.loads(sys.stdin.readline()))
    known: dict[str, Callable[..., Any]] = {
        "cuts": lambda: edge.cuts,
        "ping": edge.ping,
        "open": edge.open,
        "play": edge.play,
        "alone": edge.alone,
        "close": edge.close,
    }
    _say({"answer": edge.cuts})
    for line in sys.stdin:
        order = json.loads(line)
        try:
            _say({"answer": known[order.pop("do")](**order)})
        except EdgeDeployError as error:
            _say({"error": error_to_json(error)})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
