"""A cloud inside this process, which fails when it is told to: what tests and benches hold a live session against."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from edge_deploy.core.clock import Clock, SystemClock
from edge_deploy.core.cut import ALL_CLOUD
from runtimes.serving.contracts import Cancellation, RemoteModel, Reply, SegmentInfo
from runtimes.serving.errors import CloudError, CloudRefused

__all__ = ["PretendCloud", "PretendSegment"]

Tail = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


@dataclass(slots=True, kw_only=True)
class PretendCloud:
    """What the segments of one pretended server share; change it while they are called.

    Attributes:
        tails: By id of a cut: what is computed behind it.
        fails: Raised by every call while it is set; asked with the number of the call, counted from 1.
        spoils: What is made of every answer.
        lists: Whether it can say which models it has.
        calls: How many requests came; `connections`: how many segments were made.
    """

    tails: Mapping[str, Tail]
    name: str = "model"
    digest: str = ""
    fails: Callable[[int], CloudError | None] | None = None
    spoils: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    lists: bool = True
    clock: Clock = field(default_factory=SystemClock)
    calls: int = 0
    connections: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def connect(self) -> PretendSegment:
        """A connection."""
        with self.lock:
            self.connections += 1
        return PretendSegment(self)


class PretendSegment:
    """See `runtimes.serving.contracts.RemoteSegment`."""

    def __init__(self, cloud: PretendCloud) -> None:
        self._cloud = cloud

    def infer(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        deadline_s: float,
        cut: str,
        codec: str = "raw",
        request_id: str = "",
        cancel: Cancellation | None = None,
    ) -> Reply:
        """Compute the tail here."""
        cloud = self._cloud
        self._fail()
        if cut not in cloud.tails:
            raise CloudRefused(f"pretended cloud: has no tail behind {cut}.")
        begun = cloud.clock.now_s()
        with cloud.lock:
            found = dict(cloud.tails[cut](arrays))
        if cloud.spoils is not None:
            found = cloud.spoils(found)
        return Reply(
            found,
            queue_s=0.0,
            compute_s=cloud.clock.now_s() - begun,
            sent_bytes=sum(array.nbytes for array in arrays.values()),
            received_bytes=sum(array.nbytes for array in found.values()),
        )

    def metadata(self, *, deadline_s: float) -> RemoteModel:
        """What there is."""
        self._fail()
        if not self._cloud.lists:
            raise CloudRefused("pretended cloud: UNIMPLEMENTED")
        return RemoteModel(name=self._cloud.name, digest=self._cloud.digest, cuts=tuple(self._cloud.tails))

    def segment(self, cut: str, *, deadline_s: float) -> SegmentInfo:
        """Name and version only."""
        self._fail()
        if cut not in self._cloud.tails:
            raise CloudRefused(f"pretended cloud: has no tail behind {cut}.")
        name = self._cloud.name if cut == ALL_CLOUD else f"{self._cloud.name}@{cut}"
        return SegmentInfo(name=name, version=self._cloud.digest, inputs=(), outputs=())

    def is_ready(self, *, deadline_s: float, padding: int = 0) -> bool:
        """Always, unless it fails."""
        self._fail()
        return True

    def close(self) -> None:
        """Nothing to end."""

    def _fail(self) -> None:
        with self._cloud.lock:
            self._cloud.calls += 1
            number = self._cloud.calls
        error = self._cloud.fails(number) if self._cloud.fails is not None else None
        if error is not None:
            raise error
