"""The kernel against a second simulator that was written another way: events in a heap, objects, no arrays."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from partitioner.cut_table import CutTable
from partitioner.setting import Setting
from partitioner.simulator.simulate import simulate_decisions
from partitioner.simulator.world import World


@dataclass
class Request:
    number: int
    cut: int
    arrival: float
    state: str = "new"
    done: float = math.inf
    ready: float = math.inf
    round_trip: float = 0.0


@dataclass
class Reference:
    """Events: (time, priority, counter, what, request). A naive world of queues."""

    table: CutTable
    trace: Trace
    world: World
    events: list = field(default_factory=list)
    counter: itertools.count = field(default_factory=itertools.count)
    edge_queue: list = field(default_factory=list)
    edge_busy: bool = False
    uplink_queue: list = field(default_factory=list)
    uplink_busy: bool = False
    cloud_queue: list = field(default_factory=list)
    busy_workers: int = 0

    def at(self, time, priority, what, *arguments):
        heapq.heappush(self.events, (time, priority, next(self.counter), what, arguments))

    def value(self, name, now):
        return float(self.trace.values[name][int(self.trace.index(now))])

    def carried(self, name, now, bits):
        """Walk the trace in whole entries."""
        while True:
            entry = int(self.trace.index(now))
            rate = float(self.trace.values[name][entry])
            last = entry + 1 == len(self.trace.time_s)
            border = math.inf if last else float(self.trace.time_s[entry + 1])
            if rate > 0 and now + bits / rate <= border:
                return now + bits / rate
            if last:
                return math.inf
            bits -= rate * (border - now)
            now = border

    def run(self, arrivals, cuts, switches):
        self.requests = [
            Request(number=i, cut=c, arrival=a) for i, (a, c) in enumerate(zip(arrivals, cuts, strict=True))
        ]
        for time, seconds in switches:
            self.at(time, 0, self.enqueue, "switch", None, seconds)
        for request in self.requests:
            self.at(request.arrival, 2, self.enqueue, "head", request, None)
        while self.events:
            self.now, _, _, what, arguments = heapq.heappop(self.events)
            what(*arguments)
        return [request.done for request in self.requests]

    def enqueue(self, kind, request, seconds):
        self.edge_queue.append((kind, request, seconds))
        self.start_edge()

    def start_edge(self):
        if self.edge_busy or not self.edge_queue:
            return
        kind, request, seconds = self.edge_queue.pop(0)
        self.edge_busy = True
        slow = 1.0 + self.value("edge_load", self.now)
        if kind == "switch":
            self.at(self.now + seconds, 0, self.edge_done, "switch", None)
        elif kind == "head":
            work = self.table.edge_s[request.cut] + self.table.encode_s[request.cut] * self.table.crosses[request.cut]
            self.at(self.now + work * slow, 0, self.edge_done, "head", request)
        else:
            rest = self.table.edge_s[-1] - self.table.edge_s[request.cut]
            self.at(self.now + rest * slow, 0, self.edge_done, "rest", request)

    def edge_done(self, kind, request):
        self.edge_busy = False
        if kind == "rest" or (kind == "head" and not self.table.crosses[request.cut]):
            request.state, request.done = "answered", self.now
        elif kind == "head":
            request.state = "sending"
            self.at(self.now + self.world.setting.fallback_after_s, 1, self.time_is_up, request)
            self.uplink_queue.append(request)
            self.start_uplink()
        self.start_edge()

    def time_is_up(self, request):
        if request.state == "answered":
            return
        if request in self.uplink_queue:
            self.uplink_queue.remove(request)
        if request.state == "on the wire":
            self.uplink_busy = False
        request.state = "local"
        self.enqueue("rest", request, None)
        self.start_uplink()

    def start_uplink(self):
        if self.uplink_busy or not self.uplink_queue:
            return
        request = self.uplink_queue.pop(0)
        self.uplink_busy = True
        request.state = "on the wire"
        end = self.carried("uplink_bps", self.now, self.table.up_bytes[request.cut] * 8.0)
        if end < math.inf:
            self.at(end, 0, self.uplink_done, request)

    def uplink_done(self, request):
        if request.state != "on the wire":
            return
        self.uplink_busy = False
        request.state = "in the cloud"
        request.round_trip = self.value("rtt_s", np.nextafter(self.now, 0))
        self.at(self.now + request.round_trip / 2, 0, self.at_cloud, request)
        self.start_uplink()

    def at_cloud(self, request):
        self.cloud_queue.append(request)
        self.start_cloud()

    def start_cloud(self):
        while self.cloud_queue and self.busy_workers < self.world.workers:
            request = self.cloud_queue.pop(0)
            self.busy_workers += 1
            slow = 1.0 + self.value("cloud_load", self.now)
            work = self.table.cloud_s[request.cut] + self.table.decode_s[request.cut]
            self.at(self.now + work * slow, 0, self.cloud_done, request)

    def cloud_done(self, request):
        self.busy_workers -= 1
        back = self.carried("downlink_bps", self.now, self.table.down_bytes[request.cut] * 8.0)
        if back < math.inf:
            self.at(back + request.round_trip / 2, 0, self.answer, request)
        self.start_cloud()

    def answer(self, request):
        if request.state == "in the cloud":
            request.state, request.done = "answered", self.now


seconds = st.floats(0.001, 0.9)


@st.composite
def worlds(draw):
    cuts = draw(st.integers(2, 4))
    entries = draw(st.integers(1, 6))
    count = draw(st.integers(1, 25))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    edge = np.concatenate(([0.0], np.cumsum(random.uniform(0.01, 0.4, cuts - 1))))
    crosses = np.arange(cuts) < cuts - 1
    from edge_deploy.core.profile import Slowdown

    slow = Slowdown(at=(0.0, 1.0), factor=(1.0, 2.0))
    table = CutTable(
        cuts=("all-cloud", *(f"{i:03d}" for i in range(1, cuts - 1)), "all-edge"),
        codec="raw",
        edge_s=edge,
        cloud_s=random.uniform(0.01, 0.6, cuts) * crosses,
        encode_s=random.uniform(0, 0.05, cuts),
        decode_s=random.uniform(0, 0.05, cuts) * crosses,
        up_bytes=random.integers(100, 60000, cuts) * crosses,
        down_bytes=random.integers(0, 5000, cuts) * crosses,
        edge_bytes=np.zeros(cuts),
        exit_share=np.zeros(cuts),
        crosses=crosses,
        edge_cpu=slow,
        cloud_cpu=slow,
    )
    values = {name: np.zeros(entries) for name in CONDITION_FIELDS}
    values["uplink_bps"] = random.uniform(1e4, 2e6, entries) * (random.random(entries) > 0.25)
    values["downlink_bps"] = random.uniform(1e4, 2e6, entries) * (random.random(entries) > 0.1)
    # One round trip: with several, requests overtake each other on the wire in the naive world.
    values["rtt_s"] = np.full(entries, random.uniform(0, 0.2))
    values["edge_load"] = random.random(entries)
    values["cloud_load"] = random.random(entries)
    times = np.concatenate(([0.0], np.cumsum(random.uniform(0.3, 2.0, entries))))
    trace = Trace(time_s=times[:-1], end_s=float(times[-1]), values=values, source="random")
    arrivals = np.sort(random.uniform(0, times[-1], count))
    ticks = np.arange(int(np.ceil(arrivals[-1] + 1e-9)) or 1) * 1.0
    decided = random.integers(0, cuts, len(ticks))
    setting = Setting(
        fallback_after_s=draw(st.sampled_from([0.3, 1.0, 5.0, math.inf])),
        warm_s=draw(st.sampled_from([0.0, 0.05, 0.3])),
    )
    world = World(setting=setting, workers=draw(st.integers(1, 3)))
    return table, trace, world, arrivals, ticks, decided


@settings(max_examples=150, deadline=None)
@given(worlds())
def test_every_answer_comes_when_the_naive_simulator_says(case):
    table, trace, world, arrivals, ticks, decided = case
    served = simulate_decisions("x", table, trace, arrivals, ticks, decided, world, compiled=False)
    changed = np.flatnonzero(np.diff(decided)) + 1
    switches = [(float(ticks[k]), world.setting.warm_s) for k in changed]
    cuts = decided[np.minimum(np.searchsorted(ticks, arrivals, side="right") - 1, len(ticks) - 1)]
    expected = Reference(table, trace, world).run(arrivals.tolist(), cuts.tolist(), switches)
    np.testing.assert_allclose(served.done_s, expected, rtol=1e-9, atol=1e-9)
    answered = np.isfinite(served.done_s)
    np.testing.assert_allclose(served.parts_s.sum(axis=0)[answered], served.latency_s[answered], rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.integers(1, 4), st.floats(0.0, 0.3))
def test_every_request_gets_exactly_one_answer_also_with_batches_and_failures(case, limit, wait):
    table, trace, world, arrivals, ticks, decided = case
    middle = trace.end_s / 2
    world = dataclasses.replace(
        world, batch_limit=limit, batch_wait_s=wait, cloud_fails=((middle, middle + 0.7), (middle + 1.0, middle + 1.1))
    )
    served = simulate_decisions("x", table, trace, arrivals, ticks, decided, world, compiled=False)
    assert ((served.how >= 1) & (served.how <= 4)).all()
    assert (np.isinf(served.done_s) == (served.how == 4)).all()
    if math.isfinite(world.setting.fallback_after_s):
        assert served.lost == 0
    answered = served.how != 4
    assert (served.parts_s >= -1e-9).all()
    np.testing.assert_allclose(served.parts_s.sum(axis=0)[answered], served.latency_s[answered], rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(worlds())
def test_batches_of_one_are_no_batches(case):
    """The path for batches with a share of 0 waits and members that never meet gives the times of the plain path."""
    table, trace, world, arrivals, ticks, decided = case
    far = arrivals + np.arange(len(arrivals)) * 1000.0
    ticks = np.arange(int(np.ceil(far[-1])) + 1) * 1.0
    decided = np.zeros(len(ticks), dtype=int)
    plain = simulate_decisions("x", table, trace, far, ticks, decided, world, compiled=False)
    batched = simulate_decisions(
        "x", table, trace, far, ticks, decided, dataclasses.replace(world, batch_limit=4), compiled=False
    )
    np.testing.assert_allclose(plain.done_s, batched.done_s, rtol=1e-12)
