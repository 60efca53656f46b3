"""The thread beside the requests: probes, the controller's ticks, switches, the cloud's return, and the record.

Requests only append to a queue; everything that costs time or needs a lock is done here.
"""

from __future__ import annotations

import math
import threading
from collections import deque

from edge_deploy.core.clock import Clock
from edge_deploy.core.conditions import Conditions
from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput, EdgeDeployError
from edge_deploy.core.tensor import TensorInfo
from partitioner.cost import as_arrays
from partitioner.live.breaker import Breaker
from partitioner.live.decide import Decide
from partitioner.live.happened import BY_CLOUD, Happened
from partitioner.live.link_estimate import LinkEstimate, LinkState
from partitioner.live.link_probe import LinkProbe
from partitioner.live.options import LiveOptions
from partitioner.live.record import CloudChanged, Recorder, Tick
from partitioner.live.remote import Remote
from partitioner.live.stage import Stage
from partitioner.live.status import Counters, Status
from partitioner.live.switches import Switched, switching
from partitioner.live.warm import most_useful
from partitioner.setting import expected_s
from runtimes.probes.pressure import EdgeProbe
from runtimes.serving.errors import CloudError, CloudGone, CloudTimedOut

__all__ = ["Decide", "Loop"]

# Between two looks at what happened: what the cloud's return waits for, beside the breaker's own pauses.
STEP_S = 0.1
LOOK_S = 1.0
FIRST_LOOK_S = 3.0
FIRST_PINGS = 3
SHOWN = 200
NEVER_S = 1e9


class Loop:
    """Owned by a session; see there for what its parts are."""

    def __init__(
        self,
        *,
        stage: Stage,
        remote: Remote,
        breaker: Breaker,
        happened: deque[Happened],
        options: LiveOptions,
        decide: Decide | None,
        recorder: Recorder | None,
        clock: Clock,
    ) -> None:
        self._stage, self._remote, self._breaker, self._happened = stage, remote, breaker, happened
        self._options, self._decide, self._recorder, self._clock = options, decide, recorder, clock
        self._switch = switching(options.switch)
        self._link = LinkEstimate()
        self._probe = LinkProbe(stage.halves, remote, idle_s=options.probe_idle_s)
        self._edge = EdgeProbe()
        self._machine = self._edge.read()
        self._counters = Counters([half.cut for half in stage.halves])
        self._since_tick: list[Happened] = []
        self._start_s = clock.now_s()
        self._next_tick_s = 0.0
        self._plan_says = ""
        self._conditions: Conditions | None = None
        self._was_open = False
        self._switching = threading.Lock()
        self._draining = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-loop", daemon=True)
        self.failure: Exception | None = None

    def begin(self, *, must_answer: bool) -> None:
        """Look at the cloud, load what is to be warm, decide for the first time, and go on in a thread.

        Raises:
            CloudError: The cloud cannot answer and `must_answer` says that nobody else can.
        """
        now = self._clock.now_s()
        if self._decide is not None or any(half.crosses for half in self._stage.halves):
            try:
                self._remote.look(deadline_s=FIRST_LOOK_S)
                for _ in range(FIRST_PINGS):
                    self._link.round_trip(now, self._remote.ping(deadline_s=FIRST_LOOK_S))
            except CloudError as error:
                if must_answer:
                    raise
                self._breaker.failed(now, f"{type(error).__name__}: {error}", surely=True)
                self._link.gone()
        self._start_s = self._clock.now_s()
        self._tick(self._start_s)
        self._tend_warm(len(self._stage.halves))
        self._thread.start()

    def end(self) -> None:
        """Stop, and write what is left."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            if self.failure is not None:
                raise self.failure
            self._drain()
            self._note_cloud(self._clock.now_s())
        finally:
            if self._recorder is not None:
                self._recorder.close()

    def status(self, *, settled: bool = False) -> Status:
        """A look at everything; `settled` waits until every request up to now is counted."""
        if settled:
            with self._draining:
                self._drain_all()
        p50, p95, p99 = self._counters.percentiles()
        counters = self._counters
        running = self._stage.running
        return Status(
            seconds=self._clock.now_s() - self._start_s,
            cut=running.half.cut,
            warm=self._stage.warm(),
            policy=self._decide.name if self._decide is not None else f"fixed:{running.half.cut}",
            why=self._plan_says,
            conditions=self._conditions,
            cloud=self._breaker.reason or "unreachable" if self._breaker.is_open else "reachable",
            answered=dict(counters.answered),
            by_cut={cut: count for cut, count in counters.by_cut.copy().items() if count},
            p50_s=p50,
            p95_s=p95,
            p99_s=p99,
            up_bytes=counters.up_bytes,
            down_bytes=counters.down_bytes,
            attempts=counters.attempts,
            switches=counters.switches,
            last_reason=counters.last_reason,
            cpu_pressure=self._machine.cpu_pressure,
            memory_pressure=self._machine.memory_pressure,
            newest=tuple((at - self._start_s, took) for at, took in counters.newest(SHOWN)),
        )

    def switch_to(self, index: int) -> Switched | None:
        """Go over to the half with this index; None where it is in force."""
        with self._switching:
            if index == self._stage.running.index:
                return None
            switched = self._switch.go(self._stage, index, self._clock)
            self._counters.switches += 1
            if self._recorder is not None:
                self._recorder.switch(self._clock.now_s() - self._start_s, switched)
        return switched

    def _run(self) -> None:
        try:
            while not self._stop.wait(STEP_S):
                self._step()
        except Exception as error:  # noqa: BLE001  # requests go on, and closing the session tells it
            self.failure = error
            self._plan_says = f"nothing is decided any more: {type(error).__name__}: {error}"
            while not self._stop.wait(STEP_S):
                self._happened.clear()  # nobody takes what requests leave

    def _step(self) -> None:
        self._drain()
        now = self._clock.now_s()
        if self._breaker.probe_due(now):
            self._look_again()
        self._note_cloud(now)
        if now >= self._next_tick_s:
            self._tick(now)
            self._tend_warm(1)

    def _drain(self) -> None:
        """Take what requests have left."""
        with self._draining:
            self._drain_all()

    def _drain_all(self) -> None:
        while self._happened:
            one = self._happened.popleft()
            self._counters.add(one)
            self._since_tick.append(one)
            if self._recorder is not None:
                self._recorder.request(one, self._start_s)
            if one.how == BY_CLOUD:
                theirs = max(one.queue_s, 0.0) + max(one.cloud_s, 0.0)
                if one.cloud_s < 0:
                    theirs = self._believed_cloud_s(one.cut)
                wire_s = one.answered_s - one.encoded_s - theirs
                self._link.transfer(one.answered_s, one.up_bytes, one.down_bytes, wire_s)
            elif not one.asked_cloud:
                continue
            elif one.reason.startswith(CloudTimedOut.__name__):
                up_bytes = sum(_bytes(info) for info in self._stage.halves[one.cut].up)
                self._link.late(one.answered_s, up_bytes, one.answered_s - one.encoded_s)
            elif one.reason.startswith(CloudGone.__name__):
                self._link.gone()

    def _believed_cloud_s(self, cut: int) -> float:
        """What the profile says, of a server that does not tell its own time."""
        if self._decide is None:
            return 0.0
        name = self._stage.halves[cut].cut
        table = self._decide.table
        return float(table.cloud_s[table.cuts.index(name)]) if name in table.cuts else 0.0

    def _tick(self, now: float) -> None:
        """Probe, decide, switch, write."""
        self._next_tick_s = now + self._options.setting.tick_s
        self._drain()
        if not self._breaker.is_open:
            self._probe_link(now)
        link = self._link.state(now)
        conditions, pressure = self._measured(link)
        self._conditions = conditions
        happened, self._since_tick = self._since_tick, []
        if self._decide is not None:
            plan = self._decide.tick(now - self._start_s, conditions, happened, link.rtt_s, link.downlink_bps)
            self._plan_says = plan.why
            try:
                self.switch_to(self._stage.index(plan.cuts[0]))
            except EdgeDeployError as error:
                self._plan_says = f"{plan.why} It could not be loaded: {error}"
        if self._recorder is not None:
            cut = self._stage.running.index
            at_s = now - self._start_s
            self._recorder.tick(Tick(at_s=at_s, conditions=conditions, cut=cut, why=self._plan_says, pressure=pressure))
            self._recorder.flush()

    def _measured(self, link: LinkState) -> tuple[Conditions, float | None]:
        edge = self._machine = self._edge.read()
        queues = [one.queue_s for one in self._since_tick if one.how == BY_CLOUD and one.queue_s >= 0]
        is_open = self._breaker.is_open
        conditions = Conditions(
            uplink_bps=0.0 if is_open else link.uplink_bps,
            downlink_bps=0.0 if is_open else link.downlink_bps,
            rtt_s=link.rtt_s,
            edge_load=edge.load,
            edge_memory=edge.memory,
            cloud_queue_s=sum(queues) / len(queues) if queues else 0.0,
        )
        return conditions, edge.cpu_pressure

    def _probe_link(self, now: float) -> None:
        """Small messages where no transfer of the last tick told the same."""
        state = self._link.state(now)
        try:
            self._probe.run(now, state, self._link, self._clock, last=self._since_tick)
        except CloudError as error:
            self._link.gone()
            surely = not isinstance(error, CloudTimedOut)
            self._breaker.failed(self._clock.now_s(), f"{type(error).__name__}: {error}", surely=surely)

    def _look_again(self) -> None:
        """See if the cloud is back, by a new connection."""
        try:
            self._remote.look(deadline_s=LOOK_S, fresh=True)
            took = self._remote.ping(deadline_s=LOOK_S)
        except CloudError as error:
            reason = f"{type(error).__name__}: {error}"
            self._breaker.probed(self._clock.now_s(), answered=False, reason=reason)
        else:
            now = self._clock.now_s()
            self._link.round_trip(now, took)
            self._breaker.probed(now, answered=True)
            self._next_tick_s = now  # decide anew at once

    def _note_cloud(self, now: float) -> None:
        is_open = self._breaker.is_open
        if is_open != self._was_open:
            self._was_open = is_open
            if self._recorder is not None:
                changed = CloudChanged(at_s=now - self._start_s, reachable=not is_open, reason=self._breaker.reason)
                self._recorder.cloud(changed)

    def _tend_warm(self, most: int) -> None:
        """Keep the halves loaded that are worth it now: unload others, load `most` of those that are missing."""
        if self._options.switch != "warm-standby":
            return
        stage, warm = self._stage, self._options.setting.warm
        with self._switching:
            always = [stage.running.index, *(stage.index(cut) for cut in stage.kept)]
            expected = self._expected_s()
            if warm is not None:  # what the user names goes first, and nothing else is loaded ahead
                named = [stage.index(cut) for cut in warm]
                expected = [float(named.index(index)) if index in named else math.inf for index in range(len(expected))]
            wanted = most_useful(expected, [half.bytes for half in stage.halves], stage.budget_bytes, always=always)
            missing = [index for index in wanted if stage.loaded(index) is None and math.isfinite(expected[index])]
            for index in missing[:most]:
                for other in stage.loaded_indices():
                    if other not in wanted:
                        stage.unload(other)
                if stage.loaded_bytes + stage.halves[index].bytes <= stage.budget_bytes:
                    stage.load(index)

    def _expected_s(self) -> list[float]:
        """Expected latency of every cut under the newest conditions, in the order of the halves."""
        halves = self._stage.halves
        if self._decide is None or self._conditions is None:
            return [float(index) for index in range(len(halves))]
        table = self._decide.table
        row = expected_s(table, as_arrays(self._conditions), self._options.setting)[0]
        by_cut = dict(zip(table.cuts, row.tolist(), strict=True))
        # Cuts that can answer later only are the last ones, not none: the cloud may be away at the moment.
        return [min(by_cut.get(half.cut, math.inf), NEVER_S) if half.cut in by_cut else math.inf for half in halves]


def _bytes(info: TensorInfo) -> int:
    try:
        return tensor_bytes(info)
    except BadInput:
        return 1  # a dynamic size: at least something
