"""Put requests that wait for one model together and run them: the queue, its bounds, and who gets which rows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from edge_deploy.core.errors import BadInput, EdgeDeployError
from runtimes.serving.errors import CloudGone, CloudOverloaded

__all__ = ["Batching", "Queue", "Run", "Turns"]

Arrays = Mapping[str, np.ndarray]


class Run(Protocol):
    """Carries out inferences, one at a time."""

    def __call__(self, arrays: Arrays) -> Arrays:
        """One inference; outputs have as many rows as the inputs."""

    def is_quick(self, rows: int) -> bool:
        """Whether one of so many rows is known to take less time than handing it to a thread and back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How requests are put together.

    Attributes:
        rows: At most so many in one inference; a request of more is spread over several. None where the model takes
            its inputs as they are: one request is one inference.
        wait_s: The first request of a batch waits at most so long for others, while a session is free.
        waiting: Requests that may wait; more are refused at once.
    """

    rows: int | None = None
    wait_s: float = 0.0
    waiting: int = 1024

    def __post_init__(self) -> None:
        if (self.rows is not None and self.rows < 1) or self.wait_s < 0 or self.waiting < 1:
            raise BadInput(f"batching: {self}: rows and waiting must be at least 1, wait_s at least 0.")


class Turns:
    """How many inferences of a process run at once, over all its models: more only slow each other down."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, otherwise: Callable[[], None]) -> bool:
        """Take a turn; where none is free, `otherwise` is called when one has become so."""
        if self._free:
            self._free -= 1
            return True
        if otherwise not in self._waiting:
            self._waiting.append(otherwise)
        return False

    def give_back(self) -> None:
        """End a turn."""
        self._free += 1
        while self._free and self._waiting:
            self._waiting.popleft()()


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    """One call of `Queue.infer`: its answer is whole when all parts are."""

    answer: asyncio.Future[Arrays]
    parts: list[Arrays | None]
    told: Callable[[float, float], None]


@dataclass(slots=True, kw_only=True, eq=False)
class _Part:
    arrays: Arrays
    rows: int
    request: _Request
    place: int
    deadline_s: float
    since_s: float = field(default=0.0)


class Queue:
    """The requests of one model, run by its sessions in the order of their arrival. Lives in one event loop.

    Args:
        runs: One for each session; a session runs one batch at a time.
        threads: Where they run.
        observe: Told of each inference: requests, rows, seconds that the first one waited, seconds of the run.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        batching: Batching,
        threads: Executor,
        turns: Turns,
        observe: Callable[[int, int, float, float], None] = lambda requests, rows, waited_s, ran_s: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._free = list(runs)
        self._sessions = len(runs)
        self._batching, self._threads, self._turns, self._observe = batching, threads, turns, observe
        self._waiting: deque[_Part] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closed = False
        self._began_s: dict[int, float] = {}

    @property
    def running_since_s(self) -> float | None:
        """When the oldest inference under way began, in the time of the event loop; None where none is."""
        return min(self._began_s.values(), default=None)

    @property
    def waiting(self) -> int:
        """Requests, or parts of large ones, that no session has begun."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return self._idle.is_set()

    async def infer(
        self,
        arrays: Arrays,
        *,
        rows: int = 1,
        deadline_s: float,
        told: Callable[[float, float], None] = lambda waited_s, ran_s: None,
    ) -> Arrays:
        """The outputs for these inputs.

        Args:
            rows: Of each array, where the model takes several.
            deadline_s: In the time of the event loop; a request that waits longer is not run any more.
            told: Called with the seconds that the request waited, and those of its inference; for each part of it.

        Raises:
            CloudOverloaded: Too many wait.
            CloudGone: The queue was closed.
            BadInput: The model cannot take the values, such as ids outside a table.
            ToolchainError: The inference failed otherwise.
            TimeoutError: The deadline passed.
        """
        if self._is_closed:
            raise CloudGone("the model is being unloaded; try again.")
        parts = self._cut(arrays, rows)
        if len(self._waiting) + len(parts) > self._batching.waiting + len(self._free):
            raise CloudOverloaded(f"{len(self._waiting)} requests wait already; try again later.")
        request = _Request(answer=self._loop.create_future(), parts=[None] * len(parts), told=told)
        now = self._loop.time()
        self._waiting.extend(
            _Part(arrays=part, rows=count, request=request, place=place, deadline_s=deadline_s, since_s=now)
            for place, (part, count) in enumerate(parts)
        )
        self._idle.clear()
        self._pump()
        if request.answer.done():  # of a quick model
            return request.answer.result()
        async with asyncio.timeout_at(deadline_s):
            return await request.answer

    async def close(self) -> None:
        """Take no more requests, and wait for those that were taken."""
        self._is_closed = True
        await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()

    def _cut(self, arrays: Arrays, rows: int) -> list[tuple[Arrays, int]]:
        most = self._batching.rows
        if most is None or rows <= most:
            return [(arrays, rows)]
        return [
            ({name: array[start : start + most] for name, array in arrays.items()}, min(most, rows - start))
            for start in range(0, rows, most)
        ]

    def _pump(self) -> None:
        """Start what can be started now."""
        while self._waiting and self._free:
            self._drop_dead()
            if not self._waiting or self._waits_for_more():
                break
            if not self._turns.take(self._pump):
                break
            self._start(self._next_batch(), self._free.pop())
        if not self._waiting and len(self._free) == self._sessions:
            self._idle.set()

    def _drop_dead(self) -> None:
        """Leave out requests that nobody waits for any more, and those that would be answered too late."""
        now = self._loop.time()
        while self._waiting:
            part = self._waiting[0]
            if part.request.answer.done():
                self._waiting.popleft()
            elif part.deadline_s <= now:
                self._waiting.popleft()
                part.request.answer.set_exception(TimeoutError())
            else:
                return

    def _waits_for_more(self) -> bool:
        most, wait_s = self._batching.rows, self._batching.wait_s
        if most is None or not wait_s or self._is_closed:
            return False
        until_s = self._waiting[0].since_s + wait_s
        if self._loop.time() >= until_s or sum(part.rows for part in self._waiting) >= most:
            return False
        if self._timer is None or self._timer.cancelled() or self._timer.when() < self._loop.time():
            self._timer = self._loop.call_at(until_s, self._pump)
        return True

    def _next_batch(self) -> list[_Part]:
        batch = [self._waiting.popleft()]
        most = self._batching.rows
        if most is not None:
            rows = batch[0].rows
            while self._waiting and rows + self._waiting[0].rows <= most:
                part = self._waiting.popleft()
                if not part.request.answer.done():
                    batch.append(part)
                    rows += part.rows
        return batch

    def _start(self, batch: list[_Part], run: Run) -> None:
        began_s = self._loop.time()
        if run.is_quick(sum(part.rows for part in batch)):
            self._finish(batch, run, began_s, _run_all(batch, run))
            return
        self._began_s[id(run)] = began_s
        running = self._loop.run_in_executor(self._threads, _run_all, batch, run)
        running.add_done_callback(partial(self._done, batch, run, began_s))

    def _done(
        self, batch: list[_Part], run: Run, began_s: float, running: asyncio.Future[list[Arrays | Exception]]
    ) -> None:
        self._began_s.pop(id(run), None)
        found: Sequence[Arrays | BaseException]
        if running.cancelled():
            found = [CloudGone("the server stopped.")] * len(batch)
        else:
            failure = running.exception()
            found = running.result() if failure is None else [failure] * len(batch)
        self._finish(batch, run, began_s, found)
        self._pump()

    def _finish(self, batch: list[_Part], run: Run, began_s: float, found: Sequence[Arrays | BaseException]) -> None:
        self._free.append(run)
        ran_s = self._loop.time() - began_s
        for part, answer in zip(batch, found, strict=True):
            part.request.told(began_s - part.since_s, ran_s)
            _deliver(part, answer)
        self._observe(len(batch), sum(part.rows for part in batch), began_s - batch[0].since_s, ran_s)
        self._turns.give_back()


def _run_all(batch: Sequence[_Part], run: Run) -> list[Arrays | Exception]:
    """In a thread: one inference for all; where it fails, one for each, so that one bad request spoils no other."""
    if len(batch) > 1:
        try:
            names = batch[0].arrays
            together = run({name: np.concatenate([part.arrays[name] for part in batch]) for name in names})
            ends = np.cumsum([part.rows for part in batch])
            return [
                {name: array[end - part.rows : end] for name, array in together.items()}
                for part, end in zip(batch, ends, strict=True)
            ]
        except EdgeDeployError:
            pass  # each alone, below
    found: list[Arrays | Exception] = []
    for part in batch:
        try:
            found.append(run(part.arrays))
        except EdgeDeployError as error:
            found.append(error)
    return found


def _deliver(part: _Part, answer: Arrays | BaseException) -> None:
    request = part.request
    if request.answer.done():
        return
    if isinstance(answer, BaseException):
        request.answer.set_exception(answer)
        return
    request.parts[part.place] = answer
    if all(each is not None for each in request.parts):
        whole = [each for each in request.parts if each is not None]
        joined = whole[0] if len(whole) == 1 else {n: np.concatenate([each[n] for each in whole]) for n in whole[0]}
        request.answer.set_result(joined)
