"""Models of a server, loaded when they are first asked for and unloaded, the longest unused first, within a budget."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from edge_deploy.core.errors import BadInput
from runtimes.probes.memory import memory_now
from runtimes.serving.batching import Arrays, Batching, Queue, Turns
from runtimes.serving.errors import CloudOverloaded
from runtimes.serving.handling import measure_handling
from runtimes.serving.lane import Lane, random_rows, rows_are_independent, sizes_of
from runtimes.serving.offers import Offer
from runtimes.serving.queue_model import QueueModel, Setting, measure_service
from runtimes.serving.tuning import rate_grid, tune

__all__ = ["Loaded", "Loading", "Shelf"]

WAIT_SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)  # of the limit
_runtimes_in_memory: set[str] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How models are loaded.

    Attributes:
        memory_bytes: Budget of all loaded models; None for no bound.
        sessions: Of each model: that many of its inferences run at once.
        threads: Of one inference.
        rows: At most so many samples in one inference, where the model takes batches; None for the artifact's own
            sizes, and up to 8 where it takes any.
        wait_s: A batch waits at most so long for more, while a session is free.
        waiting: Requests that may wait for one model.
        p95_s: Choose batch size and waiting time of each model when it is loaded, for the largest load whose 95th
            percentile in the queue is within this; `rows` remains the bound, `wait_s` is not used. None to take both
            as they are.
    """

    memory_bytes: int | None = None
    sessions: int = 1
    threads: int = 1
    rows: int | None = None
    wait_s: float = 0.0
    waiting: int = 1024
    p95_s: float | None = None

    def __post_init__(self) -> None:
        rows = 1 if self.rows is None else self.rows
        if min(self.sessions, self.threads, rows, self.waiting) < 1 or self.wait_s < 0:
            raise BadInput(f"serve: {self}: sessions, threads, rows and waiting must be at least 1, wait_s at least 0.")
        if self.p95_s is not None and not self.p95_s > 0:
            raise BadInput(f"serve: p95_s = {self.p95_s}: must be above 0.")


@dataclass(slots=True, kw_only=True, eq=False)
class Loaded:
    """A model that is ready.

    Attributes:
        cost_bytes: What it counts against the budget: its files for each session, or what the process grew by.
        batches: Batch sizes in use; empty where one request is one inference.
        note: Why requests are not put together, where they are not; else what was tuned.
        users: Requests under way.
    """

    queue: Queue
    lanes: tuple[Lane, ...]
    cost_bytes: int
    batches: tuple[int, ...]
    note: str
    users: int = 0
    used_at: int = 0


class Shelf:
    """Loads models in threads; lives in one event loop.

    Args:
        offers: Everything that may be loaded.
        on_change: Called with how many models are loaded and the bytes that they count.
        observer: Makes, for a model's name, what `Queue` tells each inference.

    Raises:
        BadInput: A model alone needs more than the budget.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        loading: Loading,
        *,
        threads: Executor,
        turns: Turns,
        on_change: Callable[[int, int], None] = lambda models, count: None,
        observer: Callable[[str], Callable[[int, int, float, float], None]] | None = None,
    ) -> None:
        budget = loading.memory_bytes
        if budget is not None:
            problems = [
                f"{offer.info.name}: {offer.file_bytes * loading.sessions} bytes for {loading.sessions} sessions, the "
                f"memory budget is {budget}; raise it, or take fewer sessions."
                for offer in offers
                if offer.file_bytes * loading.sessions > budget
            ]
            if problems:
                raise BadInput(*problems)
        self._loading, self._threads, self._turns = loading, threads, turns
        self._on_change, self._observer = on_change, observer
        self._loaded: dict[tuple[str, str], Loaded] = {}
        self._one_at_a_time = asyncio.Lock()
        self._uses = 0

    @property
    def loaded(self) -> tuple[tuple[str, str], ...]:
        """Name and version of the models in memory."""
        return tuple(self._loaded)

    @property
    def cost_bytes(self) -> int:
        """What the loaded models count against the budget."""
        return sum(each.cost_bytes for each in self._loaded.values())

    def running_since_s(self) -> float | None:
        """When the oldest inference under way began, in the time of the event loop; None where none is."""
        found = (model.queue.running_since_s for model in self._loaded.values())
        return min((since_s for since_s in found if since_s is not None), default=None)

    def find(self, offer: Offer) -> Loaded | None:
        """The model, if it is loaded."""
        return self._loaded.get((offer.info.name, offer.info.version))

    async def infer(
        self,
        offer: Offer,
        arrays: Arrays,
        *,
        rows: int,
        deadline_s: float,
        told: Callable[[float, float], None] = lambda waited_s, ran_s: None,
    ) -> Arrays:
        """Run a request, loading its model first where needed; raises as `Queue.infer` does.

        Raises:
            CloudOverloaded: The budget is used up by models that are working.
        """
        model = self.find(offer)
        if model is None:
            async with asyncio.timeout_at(deadline_s):
                model = await self._load(offer)
        self._uses += 1
        model.used_at = self._uses
        model.users += 1
        try:
            return await model.queue.infer(arrays, rows=rows, deadline_s=deadline_s, told=told)
        finally:
            model.users -= 1

    async def load(self, offer: Offer) -> Loaded:
        """Load a model ahead of its first request."""
        return self.find(offer) or await self._load(offer)

    async def close(self) -> None:
        """Wait for the requests under way, and free everything."""
        async with self._one_at_a_time:
            while self._loaded:
                _, model = self._loaded.popitem()
                await self._free(model)

    async def _load(self, offer: Offer) -> Loaded:
        loop = asyncio.get_running_loop()
        async with self._one_at_a_time:
            found = self.find(offer)  # by a request that came a moment earlier
            if found is not None:
                return found
            await self._make_room(offer.file_bytes * self._loading.sessions)
            lanes, cost, sizes, setting, note = await loop.run_in_executor(self._threads, _open, offer, self._loading)
            batching = Batching(
                rows=setting.rows if sizes else None, wait_s=setting.wait_s, waiting=self._loading.waiting
            )
            observe = {} if self._observer is None else {"observe": self._observer(offer.info.name)}
            queue = Queue(lanes, batching=batching, threads=self._threads, turns=self._turns, **observe)
            model = Loaded(queue=queue, lanes=lanes, cost_bytes=cost, batches=sizes, note=note)
            # What it really needs is known only now.
            budget = self._loading.memory_bytes
            if budget is not None and self.cost_bytes + cost > budget and self._loaded:
                await self._make_room(min(cost, budget), keep_going=True)
            self._loaded[(offer.info.name, offer.info.version)] = model
            self._on_change(len(self._loaded), self.cost_bytes)
            return model

    async def _make_room(self, needed: int, *, keep_going: bool = False) -> None:
        budget = self._loading.memory_bytes
        while budget is not None and self.cost_bytes + needed > budget and self._loaded:
            idle = [key for key, model in self._loaded.items() if not model.users and model.queue.is_idle]
            if not idle:
                if keep_going:
                    return
                raise CloudOverloaded("all models in memory are working and the budget is used up; try again later.")
            oldest = min(idle, key=lambda key: self._loaded[key].used_at)
            await self._free(self._loaded.pop(oldest))
            self._on_change(len(self._loaded), self.cost_bytes)

    async def _free(self, model: Loaded) -> None:
        await model.queue.close()
        loop = asyncio.get_running_loop()
        for lane in model.lanes:
            await loop.run_in_executor(self._threads, lane.close)


def _open(offer: Offer, loading: Loading) -> tuple[tuple[Lane, ...], int, tuple[int, ...], Setting, str]:
    """In a thread: open the sessions, and find the largest batch whose rows do not depend on each other."""
    sizes, note = sizes_of(offer, loading.rows), ""
    if not sizes:
        note = "the artifact has one batch size"
    while len(sizes) > 1:
        lane = Lane(offer, sizes, threads=loading.threads)
        try:
            if rows_are_independent(offer, sizes, lane):
                break
        finally:
            lane.close()
        note = f"a batch of {sizes[-1]} gives rows other values than each alone"
        sizes = sizes[:-1]
    if offer.platform not in _runtimes_in_memory:
        # The runtime's own code is no model's cost.
        first = Lane(offer, sizes)
        first.open()
        first.close()
        _runtimes_in_memory.add(offer.platform)
    setting = Setting(rows=sizes[-1] if sizes else 1, wait_s=loading.wait_s)
    if loading.p95_s is not None and len(sizes) > 1:
        setting, note = _tuned(offer, sizes, loading, loading.p95_s)
    before = _anonymous_bytes()
    lanes = tuple(Lane(offer, sizes, threads=loading.threads) for _ in range(loading.sessions))
    for lane in lanes:
        lane.open()
    cost = max(offer.file_bytes * loading.sessions, _anonymous_bytes() - before)
    return lanes, cost, sizes, setting, note


def _tuned(offer: Offer, sizes: Sequence[int], loading: Loading, limit_s: float) -> tuple[Setting, str]:
    """The setting for the largest load, by service times measured now and arrivals in virtual time."""
    lane = Lane(offer, sizes, threads=loading.threads)
    try:
        feeds = {size: random_rows(offer.signatures[0].inputs, size) for size in sizes}
        times = measure_service(lambda size: lane(feeds[size]), sizes, clock=time.perf_counter)
    finally:
        lane.close()
    handling_s = measure_handling()
    model = QueueModel(times, sessions=loading.sessions, handling_s=handling_s)
    capacity = loading.sessions * max(
        size / (statistics.median(values) + size * handling_s) for size, values in times.items()
    )
    waits_s = [limit_s * share for share in WAIT_SHARES]
    found = tune(model.p95_s, rows=sizes, waits_s=waits_s, limit_s=limit_s, rates=rate_grid(capacity))
    if not found.rate_rps:
        return Setting(rows=sizes[0]), f"one inference takes longer than the limit of {limit_s * 1e3:g} ms"
    return found.setting, (
        f"batches of {found.setting.rows}, waiting {found.setting.wait_s * 1e3:.2g} ms: {found.rate_rps:.0f} rows/s "
        f"with a p95 of {found.p95_s * 1e3:.2g} ms in the queue, by {found.probes} probes"
    )


def _anonymous_bytes() -> int:
    now = memory_now()
    return 0 if now is None else now.anonymous_bytes
