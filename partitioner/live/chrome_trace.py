"""A recorded run as a trace that Perfetto and chrome://tracing show: lanes for edge, wire and cloud, and counters.

The format is Chrome's JSON trace event format: complete events ("X") in microseconds on threads of processes. Requests
overlap on the wire and in the cloud, and events of one thread must nest, so those lanes have as many threads as there
were requests at the same time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from partitioner.live.happened import BY_CLOUD, HOW, Happened
from partitioner.live.record import Run

__all__ = ["chrome_trace"]

EDGE, WIRE, CLOUD, CONTROL = 1, 2, 3, 4
_LANES = {EDGE: "edge", WIRE: "wire", CLOUD: "cloud", CONTROL: "controller"}


def chrome_trace(run: Run) -> dict[str, Any]:
    """The trace as plain JSON values; where in the round trip the cloud's part lies is drawn in its middle.

    A cloud that does not tell its own time has no events: what the edge saw of it is the wire.
    """
    events: list[dict[str, Any]] = []
    for lane, name in _LANES.items():
        events.append({"ph": "M", "name": "process_name", "pid": lane, "args": {"name": name}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": lane, "args": {"sort_index": lane}})
    events += _requests(run)
    events += _control(run)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"artifact": run.start.artifact, "cloud": run.start.cloud, "policy": run.start.policy},
    }


class _Span(NamedTuple):
    lane: int
    begin_s: float
    end_s: float
    name: str
    facts: dict[str, Any]


def _requests(run: Run) -> Iterator[dict[str, Any]]:
    """Complete events of all requests, on threads of their lanes that nothing else is on at that time."""
    spans = [span for number, one in enumerate(run.requests) for span in _spans(run, number, one)]
    threads = {lane: _Threads() for lane in _LANES}
    for span in sorted(spans, key=lambda span: span.begin_s):
        yield _event(span.lane, threads[span.lane].take(span.begin_s, span.end_s), span)


def _spans(run: Run, number: int, one: Happened) -> Iterator[_Span]:
    facts: dict[str, Any] = {"request": one.number or number, "cut": run.start.cuts[one.cut], "answered": HOW[one.how]}
    if one.reason:
        facts["reason"] = one.reason
    yield _Span(EDGE, one.begun_s, one.headed_s, "head", facts)
    if one.encoded_s > one.headed_s:
        yield _Span(EDGE, one.headed_s, one.encoded_s, "encode", facts)
    if not one.answered_s:
        return
    sent = one.encoded_s or one.headed_s
    name = "no answer"
    if one.how == BY_CLOUD:
        name = "round trip"
        facts = {**facts, "up_bytes": one.up_bytes, "down_bytes": one.down_bytes, "attempts": one.attempts}
        yield from _cloud(one, sent, facts)
    elif one.done_s > one.answered_s:
        yield _Span(EDGE, one.answered_s, one.done_s, "whole model instead", facts)
    yield _Span(WIRE, sent, one.answered_s, name, facts)


def _cloud(one: Happened, sent: float, facts: dict[str, Any]) -> Iterator[_Span]:
    if one.cloud_s < 0:
        return
    queue_s = max(one.queue_s, 0.0)
    spare_s = max(one.answered_s - sent - queue_s - one.cloud_s, 0.0)
    came = sent + spare_s / 2
    if queue_s > 0:
        yield _Span(CLOUD, came, came + queue_s, "queue", facts)
    yield _Span(CLOUD, came + queue_s, came + queue_s + one.cloud_s, "tail", facts)


def _control(run: Run) -> Iterator[dict[str, Any]]:
    for tick in run.ticks:
        given = tick.conditions
        counters: Sequence[tuple[str, dict[str, float]]] = (
            ("link Mbit/s", {"uplink": given.uplink_bps / 1e6, "downlink": given.downlink_bps / 1e6}),
            ("round trip ms", {"rtt": given.rtt_s * 1e3}),
            ("edge share", {"load": given.edge_load, "memory": given.edge_memory}),
        )
        for name, values in counters:
            yield {"ph": "C", "pid": CONTROL, "tid": 1, "name": name, "ts": _us(tick.at_s), "args": values}
    for at_s, switched in run.switches:
        facts = {"before": switched.before, "after": switched.after, "way": switched.way}
        yield _event(CONTROL, 1, _Span(CONTROL, at_s - switched.took_s, at_s, f"switch to {switched.after}", facts))
    for changed in run.cloud:
        name = "cloud is back" if changed.reachable else "cloud is gone"
        facts = {"reason": changed.reason}
        yield {"ph": "i", "s": "g", "pid": CONTROL, "tid": 1, "name": name, "ts": _us(changed.at_s), "args": facts}


class _Threads:
    """Hands out thread numbers so that events of one thread do not overlap; asked in the order of beginnings."""

    def __init__(self) -> None:
        self._busy: list[tuple[float, int]] = []
        self._free: list[int] = []
        self._count = 0

    def take(self, begin_s: float, end_s: float) -> int:
        """A thread that is free from `begin_s` on, busy until `end_s` from now on."""
        while self._busy and self._busy[0][0] <= begin_s:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if self._free:
            thread = heapq.heappop(self._free)
        else:
            self._count += 1
            thread = self._count
        heapq.heappush(self._busy, (end_s, thread))
        return thread


def _event(lane: int, thread: int, span: _Span) -> dict[str, Any]:
    return {
        "ph": "X",
        "pid": lane,
        "tid": thread,
        "name": span.name,
        "ts": _us(span.begin_s),
        "dur": _us(max(span.end_s - span.begin_s, 0.0)),
        "args": span.facts,
    }


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
