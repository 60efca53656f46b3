"""A server's queue in virtual time: latencies of requests that arrive at random, for measured service times."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["Load", "QueueModel", "Setting", "measure_service"]

REQUESTS = 3000
WARM_UP_SHARE = 0.1
RUNS, WARM_UP_RUNS = 15, 3


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Setting:
    """What is tuned.

    Attributes:
        rows: At most so many in one inference.
        wait_s: A batch waits at most so long for more.
    """

    rows: int
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests without their rate.

    Attributes:
        rows: Rows of each request are drawn from these, as often as they stand here.
    """

    rows: tuple[int, ...] = (1,)
    requests: int = REQUESTS
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rows or min(self.rows) < 1 or self.requests < 1:
            raise BadInput(f"load: {self}: rows and requests must be at least 1.")


class QueueModel:
    """Sessions that serve batches in the order of arrival, as `runtimes.serving.batching.Queue` does.

    Gaps between arrivals are exponential (a Poisson process), the same draws at every rate and setting, so that
    settings are compared on the same requests. (DeepRecSys draws whole milliseconds from a Poisson distribution,
    whose gaps are far more regular, and whose tails come out too short.)

    Args:
        service_s: Measured seconds of inferences, by batch size; each inference draws one of its size.
        handling_s: That each request costs the session beside its inference.
    """

    def __init__(
        self,
        service_s: Mapping[int, Sequence[float]],
        *,
        sessions: int = 1,
        load: Load | None = None,
        handling_s: float = 0.0,
    ) -> None:
        if not service_s or sessions < 1:
            raise BadInput("queue model: needs the seconds of at least one batch size, and a session.")
        load = load or Load()
        rng = np.random.default_rng(load.seed)
        self._sizes = sorted(service_s)
        self._sessions, self._handling_s = sessions, handling_s
        self._unit_gaps = rng.exponential(1.0, load.requests)
        self._rows = rng.choice(np.array(load.rows), load.requests)
        picks = rng.random(load.requests * 2)
        self._service = {
            size: np.asarray(times, float)[(picks * len(times)).astype(int)] for size, times in service_s.items()
        }

    def latencies_s(self, setting: Setting, rate_rps: float) -> np.ndarray:
        """Seconds from arrival to answer of each request, without the first tenth."""
        arrivals = np.cumsum(self._unit_gaps) / rate_rps
        times: list[float] = []
        rows: list[int] = []
        owners: list[int] = []
        for owner, (arrival, count) in enumerate(zip(arrivals.tolist(), self._rows.tolist(), strict=True)):
            while count > 0:
                times.append(arrival)
                rows.append(min(count, setting.rows))
                owners.append(owner)
                count -= setting.rows
        ends = self._ends(times, rows, owners, setting)
        kept = int(len(arrivals) * WARM_UP_SHARE)
        latencies: np.ndarray = (ends - arrivals)[kept:]
        return latencies

    def p95_s(self, setting: Setting, rate_rps: float) -> float:
        """The 95th percentile of the latencies."""
        return float(np.percentile(self.latencies_s(setting, rate_rps), 95))

    def _ends(self, times: list[float], rows: list[int], owners: list[int], setting: Setting) -> np.ndarray:
        """When each request is answered: its last part is."""
        ends = np.zeros(len(self._unit_gaps))
        free = [0.0] * self._sessions
        place, runs, count = 0, 0, len(times)
        while place < count:
            start = max(heapq.heappop(free), times[place])
            if setting.wait_s:
                start = max(start, min(times[place] + setting.wait_s, _full_at(times, rows, place, setting.rows)))
            stop, total = place + 1, rows[place]
            while stop < count and times[stop] <= start and total + rows[stop] <= setting.rows:
                total += rows[stop]
                stop += 1
            end = start + self._seconds(total, runs) + self._handling_s * (stop - place)
            runs += 1
            for part in range(place, stop):
                ends[owners[part]] = max(ends[owners[part]], end)
            heapq.heappush(free, end)
            place = stop
        return ends

    def _seconds(self, rows: int, run: int) -> float:
        size = next((each for each in self._sizes if each >= rows), self._sizes[-1])
        drawn = self._service[size]
        return float(drawn[run % len(drawn)])


def _full_at(times: list[float], rows: list[int], place: int, most: int) -> float:
    """When the batch that begins with this part is full."""
    total = 0
    for part in range(place, min(len(times), place + most)):
        total += rows[part]
        if total >= most:
            return times[part]
    return float("inf")


def measure_service(
    run: Callable[[int], object], sizes: Sequence[int], *, clock: Callable[[], float]
) -> dict[int, list[float]]:
    """Seconds of inferences by batch size; `run(rows)` carries one out."""
    found: dict[int, list[float]] = {}
    for size in sizes:
        for _ in range(WARM_UP_RUNS):
            run(size)
        found[size] = []
        for _ in range(RUNS):
            begun = clock()
            run(size)
            found[size].append(clock() - begun)
    return found
