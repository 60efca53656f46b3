"""A live session: requests in, answers out, while the cut moves. The way of one request is written here.

The head runs on the edge, the boundary travels, the tail's outputs come back and are looked at. Whatever goes wrong on
the way (no connection, no answer in time, another version, nonsense) ends in an answer of the whole model on the edge.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np

from edge_deploy.core.clock import Clock, SystemClock
from edge_deploy.core.cut import ALL_EDGE
from edge_deploy.core.errors import EdgeDeployError
from partitioner.live.agreement import Agreement, agreements
from partitioner.live.answers import wrong_with
from partitioner.live.breaker import Breaker
from partitioner.live.errors import Cancelled, DeadlineMissed
from partitioner.live.exits import EXIT, ends_of
from partitioner.live.halves import EdgeHalf, Whole
from partitioner.live.happened import BY_CLOUD, FELL_BACK, LOST, ON_EDGE, Happened
from partitioner.live.loop import Decide, Loop
from partitioner.live.options import PATIENCE_S, LiveOptions
from partitioner.live.record import Recorder
from partitioner.live.remote import Remote
from partitioner.live.stage import Loaded, Open, Stage
from partitioner.live.status import Status
from partitioner.live.switches import Switched
from runtimes.calling import check_inputs, zeros_for
from runtimes.serving.contracts import Cancellation, RemoteSegment
from runtimes.serving.errors import CloudError, CloudGarbled, CloudRefused, CloudTimedOut

__all__ = ["LiveSession"]

RESERVE = 1.5
AGREE_S = 5.0

_Moments = tuple[float, float, float, int]  # arrived, begun, headed; and the request's number


class LiveSession:
    """Answers requests with a model that is split between here and a cloud; use it in a `with` block.

    Args:
        whole: The model; `halves`: the cuts that can be run, see `partitioner.live.halves`.
        connect: Makes a connection to the cloud, see `runtimes.serving`.
        open_half: Loads a half.
        decide: Moves the cut; None to stay at `first`.
        first: Id of the cut to start with.
        recorder: Takes everything that happens; None to keep nothing but the status.

    Raises:
        BadInput: There is no such cut.
        CloudError: The cloud does not serve this model, and the edge cannot answer alone.
    """

    def __init__(
        self,
        whole: Whole,
        halves: tuple[EdgeHalf, ...],
        connect: Callable[[], RemoteSegment],
        open_half: Open,
        *,
        first: str,
        decide: Decide | None = None,
        options: LiveOptions | None = None,
        recorder: Recorder | None = None,
        clock: Clock | None = None,
    ) -> None:
        options = options or LiveOptions()
        self._options = options
        clock = clock or SystemClock()
        self._now = clock.now_s
        self._signature = whole.signature
        self._deadline_s = options.deadline_s
        self._exits = [ends_of(whole, half) for half in halves]
        stays = options.fallback and whole.bytes <= options.memory_bytes
        self._stage = Stage(halves, open_half, budget_bytes=options.memory_bytes, kept=(ALL_EDGE,) if stays else ())
        self._edge = self._stage.edge
        self._whole: Loaded | None = self._stage.load(self._stage.index(ALL_EDGE)) if stays else None
        self._whole_s = self._time_whole()
        start = self._stage.index(first)
        self._stage.make_room(start, keep_running=False)
        self._stage.running = self._stage.load(start)
        self._breaker = Breaker(failures=options.breaker_failures)
        crossing = tuple(half.cut for half in halves if half.crosses)
        self._remote = Remote(connect, digest=whole.sha256, codec=options.codec, clock=clock, cuts=crossing)
        self._number = itertools.count(1).__next__
        self._happened: deque[Happened] = deque()
        self._note = self._happened.append
        self._loop = Loop(
            stage=self._stage,
            remote=self._remote,
            breaker=self._breaker,
            happened=self._happened,
            options=options,
            decide=decide,
            recorder=recorder,
            clock=clock,
        )
        self._is_closed = False
        self._ends: list[Callable[[], object]] = []
        try:
            self._loop.begin(must_answer=not stays and self._stage.running.crosses)
        except EdgeDeployError:
            self.close()
            raise

    def infer(
        self,
        inputs: Mapping[str, np.ndarray],
        *,
        deadline_s: float | None = None,
        cancel: Cancellation | None = None,
    ) -> dict[str, np.ndarray]:
        """The model's outputs for one request; may be called from several threads.

        Args:
            inputs: As the model's signature describes them.
            deadline_s: Seconds from now; None for the session's. What the edge has begun to compute it finishes, so
                that the error may come later than that.
            cancel: Ends the request with `Cancelled` when it is asked for.

        Raises:
            BadInput: The inputs are not the model's, or the session is closed.
            DeadlineMissed, Cancelled: As asked for.
            CloudError: The cloud did not answer, and the whole model does not fit into the edge's memory.
        """
        now = self._now
        arrived = now()
        number = self._number()
        with self._edge:
            begun = now()
            running = in_force = self._stage.running
            shut = running.crosses and self._breaker.is_open and self._whole is not None
            if shut:
                running = self._whole  # type: ignore[assignment]  # it is not None
            elif running.crosses:
                check_inputs(self._signature, inputs)
            values = running.run(inputs)
        headed = now()
        if running.crosses:
            ends = self._exits[running.index]
            ended = None if ends is None else ends.answer(values)
            if ended is not None:
                return self._leave(running, values, ended, (arrived, begun, headed, number), deadline_s, cancel)
            return self._cross(running, inputs, values, (arrived, begun, headed, number), deadline_s, cancel)
        if shut or deadline_s is not None or cancel is not None or self._deadline_s != math.inf:
            self._finish(in_force, (arrived, begun, headed, number), deadline_s, cancel, shut=shut)
        else:
            self._note(Happened(running.index, ON_EDGE, arrived, begun, headed, headed, number))
        return values

    @property
    def status(self) -> Status:
        """What is in force, and what happened so far; up to date within a fraction of a second."""
        return self._loop.status()

    def settled_status(self) -> Status:
        """The same, with every request that has been answered counted."""
        return self._loop.status(settled=True)

    def switch_to(self, cut: str) -> Switched | None:
        """Go over to a cut now, whatever the policy thinks; None where it is in force already.

        A policy that decides keeps deciding: its next tick may go elsewhere.

        Raises:
            BadInput: There is no such cut.
            EdgeDeployError: Its half cannot be loaded; the old one is in force.
        """
        return self._loop.switch_to(self._stage.index(cut))

    def agreement(self, inputs: Mapping[str, np.ndarray]) -> tuple[Agreement, ...]:
        """Whether the cloud computes what the edge does: one request through every loaded cut, against the whole here.

        Empty where the whole model is not loaded here, or the cloud is away.

        Raises:
            BadInput: The inputs are not the model's.
        """
        if self._whole is None or self._breaker.is_open:
            return ()
        check_inputs(self._signature, inputs)
        return agreements(self._stage, self._whole, self._remote, inputs, wait_s=AGREE_S)

    def when_closed(self, act: Callable[[], object]) -> None:
        """Call `act` once the session is closed."""
        self._ends.append(act)

    def close(self) -> None:
        """End the loop and the connection, and write what is to be recorded; safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._loop.end()
        finally:
            self._remote.close()
            self._stage.close()
            for act in self._ends:
                act()

    def __enter__(self) -> LiveSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _leave(
        self,
        running: Loaded,
        values: Mapping[str, np.ndarray],
        ended: tuple[str, dict[str, np.ndarray]],
        moments: _Moments,
        deadline_s: float | None,
        cancel: Cancellation | None,
    ) -> dict[str, np.ndarray]:
        """The answer of a request that ended at an early exit; outputs of later exits are not there."""
        name, answer = ended
        arrived, begun, headed, number = moments
        if deadline_s is not None or cancel is not None or self._deadline_s != math.inf:
            self._finish(running, moments, deadline_s, cancel, shut=False, reason=EXIT + name)
        else:
            done = self._now()
            self._note(Happened(running.index, ON_EDGE, arrived, begun, headed, done, number, reason=EXIT + name))
        outputs = {**values, **answer}
        return {info.name: outputs[info.name] for info in self._signature.outputs if info.name in outputs}

    def _cross(
        self,
        running: Loaded,
        inputs: Mapping[str, np.ndarray],
        values: dict[str, np.ndarray],
        moments: _Moments,
        deadline_s: float | None,
        cancel: Cancellation | None,
    ) -> dict[str, np.ndarray]:
        """Send the boundary, take the answer, and answer on the edge where there is none."""
        arrived, begun, headed, number = moments
        until = arrived + (self._deadline_s if deadline_s is None else deadline_s)
        half = running.half
        arrays = {info.name: values[info.name] if info.name in values else inputs[info.name] for info in half.up}
        attempts = 0
        try:
            patience_s = self._patience_s(until, headed)
            if patience_s <= 0:
                raise CloudTimedOut("no time was left to ask the cloud.")
            reply, attempts, began = self._remote.call(half, arrays, wait_s=patience_s, cancel=cancel, number=number)
            answered = self._now()
            wrong = wrong_with(reply, half.down)
            if wrong:
                raise CloudGarbled(f"the cloud's answer behind cut {half.cut}: {wrong}.")
        except CloudError as error:
            # A request that was in a hurry says nothing about the cloud.
            enough_s = min(self._options.setting.fallback_after_s, PATIENCE_S)
            hurried = isinstance(error, CloudTimedOut) and patience_s < enough_s
            return self._instead(running, inputs, moments, until, cancel, error, counts=not hurried)
        self._breaker.succeeded()
        outputs = {
            info.name: reply[info.name] if info.name in reply else values[info.name] for info in self._signature.outputs
        }
        done = self._now()
        self._note(
            Happened(
                running.index,
                BY_CLOUD if done <= until else LOST,
                arrived,
                begun,
                headed,
                done,
                number,
                began + reply.encode_s,
                answered,
                reply.queue_s,
                reply.compute_s,
                reply.sent_bytes,
                reply.received_bytes,
                attempts,
            )
        )
        if done > until:
            raise DeadlineMissed(_late(done - until))
        return outputs

    def _instead(
        self,
        running: Loaded,
        inputs: Mapping[str, np.ndarray],
        moments: _Moments,
        until: float,
        cancel: Cancellation | None,
        error: CloudError,
        *,
        counts: bool,
    ) -> dict[str, np.ndarray]:
        """The answer of a request that the cloud did not answer."""
        arrived, begun, headed, number = moments
        gave_up = self._now()
        reason = f"{type(error).__name__}: {error}"

        def note(how: int, done: float) -> None:
            self._note(
                Happened(running.index, how, arrived, begun, headed, done, number, headed, gave_up, reason=reason)
            )

        if cancel is not None and cancel.is_asked:
            note(LOST, gave_up)
            raise Cancelled("the request was cancelled while it waited for the cloud.") from error
        if self._whole is None or gave_up >= until:
            if counts:
                self._breaker.failed(gave_up, reason, surely=isinstance(error, CloudRefused))
            note(LOST, gave_up)
            if gave_up >= until:
                raise DeadlineMissed(_late(gave_up - until)) from error
            raise error
        with self._edge:
            outputs = self._whole.run(inputs)  # values that no model takes are the caller's mistake, not the cloud's
        if counts:
            self._breaker.failed(gave_up, reason, surely=isinstance(error, CloudRefused))
        done = self._now()
        note(FELL_BACK if done <= until else LOST, done)
        if done > until:
            raise DeadlineMissed(_late(done - until)) from error
        return outputs

    def _patience_s(self, until: float, now_s: float) -> float:
        """How long to wait for the cloud, so that an answer of the edge would still be in time."""
        if self._whole is None:
            return until - now_s
        return min(self._options.setting.fallback_after_s, until - now_s - RESERVE * self._whole_s)

    def _finish(
        self,
        running: Loaded,
        moments: _Moments,
        deadline_s: float | None,
        cancel: Cancellation | None,
        *,
        shut: bool,
        reason: str = "",
    ) -> None:
        """The end of a request that the edge answered alone, where more than that has to be said of it."""
        arrived, begun, headed, number = moments
        late_s = headed - arrived - (self._deadline_s if deadline_s is None else deadline_s)
        error: EdgeDeployError | None = None
        if cancel is not None and cancel.is_asked:
            error = Cancelled("the request was cancelled while the edge computed it.")
        elif late_s > 0:
            error = DeadlineMissed(_late(late_s))
        how = LOST if error is not None else FELL_BACK if shut else ON_EDGE
        reason = (reason or self._breaker.reason) if error is None else f"{type(error).__name__}: {error}"
        self._note(Happened(running.index, how, arrived, begun, headed, headed, number, reason=reason))
        if error is not None:
            raise error

    def _time_whole(self) -> float:
        """What the whole model takes here, the second time; the first call of an interpreter is no measure."""
        if self._whole is None:
            return 0.0
        inputs = zeros_for(self._signature)
        self._whole.run(inputs)
        begun = self._now()
        self._whole.run(inputs)
        return self._now() - begun


def _late(seconds: float) -> str:
    return f"the answer was {seconds * 1e3:.3g} ms late for the request's deadline."
