"""The cloud as a session calls it: one connection, another one when it breaks, and a look at who is there."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from edge_deploy.core.clock import Clock
from partitioner.live.halves import EdgeHalf
from runtimes.serving.contracts import Cancellation, RemoteSegment, Reply
from runtimes.serving.errors import CloudGone, CloudRefused, CloudTimedOut

__all__ = ["Called", "Remote"]

ATTEMPTS = 2
# A second attempt with less time than this would only be late.
LEAST_WAIT_S = 0.005
LONGEST_S = 3600.0
MOST_ASKED = 3


class Called(NamedTuple):
    """An answer, and how many attempts it took; `began_s`: when the last one did."""

    reply: Reply
    attempts: int
    began_s: float


class Remote:
    """Calls may come from several threads.

    Args:
        connect: Makes a new connection; must not wait for the other side.
        digest: sha256 of the model file, that the server must have cut.
        cuts: Ids whose tails may be called; one of them is asked for where a server cannot list its models.
    """

    def __init__(
        self,
        connect: Callable[[], RemoteSegment],
        *,
        digest: str,
        codec: str,
        clock: Clock,
        cuts: tuple[str, ...] = (),
    ) -> None:
        self._connect, self._digest, self._codec, self._cuts = connect, digest, codec, cuts
        self._now = clock.now_s
        self._lock = threading.Lock()
        self._segment = connect()
        self._is_closed = False
        self._numbers = itertools.count(1)
        self._prefix = f"{digest[:8]}-{id(self):x}-"

    def call(
        self,
        half: EdgeHalf,
        arrays: Mapping[str, np.ndarray],
        *,
        wait_s: float,
        cancel: Cancellation | None = None,
        number: int = 0,
    ) -> Called:
        """The tail's outputs, by another connection if the first one breaks.

        Args:
            number: Of the request, for its id; 0 for one of the session's own.

        Raises:
            CloudError: No answer, within the time.
        """
        until = self._now() + wait_s
        request_id = f"{self._prefix}{number}" if number else f"{self._prefix}own-{next(self._numbers)}"
        for attempt in itertools.count(1):
            segment = self._segment
            begun = self._now()
            try:
                reply = segment.infer(
                    arrays,
                    deadline_s=min(until - begun, LONGEST_S),
                    cut=half.cut,
                    codec=self._codec,
                    request_id=f"{request_id}.{attempt}",
                    cancel=cancel,
                )
            except CloudGone:
                if (
                    attempt >= ATTEMPTS
                    or self._now() + LEAST_WAIT_S > until
                    or (cancel is not None and cancel.is_asked)
                ):
                    raise
                self._replace(segment)
                continue
            return Called(reply, attempt, begun)
        raise AssertionError("unreachable")

    def ping(self, *, deadline_s: float, padding: int = 0) -> float:
        """How long the smallest message takes, there and back; with so many bytes more on the way there.

        Raises:
            CloudError: There was no answer, or the server takes no requests.
        """
        begun = self._now()
        ready = self._segment.is_ready(deadline_s=deadline_s, padding=padding)
        took = self._now() - begun
        if not ready:
            raise CloudGone("the cloud takes no requests at the moment.")
        return took

    def look(self, *, deadline_s: float, fresh: bool = False) -> None:
        """See whether the cloud has this very model.

        Args:
            fresh: By a new connection, which then stays: one that failed for long waits before it tries again.

        Raises:
            CloudError: It has not, or does not answer.
        """
        if fresh:
            self._replace(self._segment)
        try:
            found = self._segment.metadata(deadline_s=deadline_s)
        except CloudRefused:
            if not self._has_a_tail(deadline_s):
                raise
            return
        if found.digest and found.digest != self._digest:
            raise CloudRefused(
                f"the cloud serves {found.name} with sha256 {found.digest[:12]}, here is {self._digest[:12]}: both "
                "sides need the same artifact."
            )
        if not found.ready:
            raise CloudGone(f"the cloud serves {found.name}, but is not ready.")

    def _has_a_tail(self, deadline_s: float) -> bool:
        """Whether a server that does not list its models has a tail of this one."""
        for cut in self._cuts[:MOST_ASKED]:
            with contextlib.suppress(CloudRefused):
                version = self._segment.segment(cut, deadline_s=deadline_s).version
                return version in ("", self._digest)
        return False

    def close(self) -> None:
        """End the connection; requests under way end as `CloudGone`, and none is made again."""
        with self._lock:
            self._is_closed = True
            self._segment.close()

    def _replace(self, broken: RemoteSegment) -> None:
        with self._lock:
            if self._is_closed:
                raise CloudGone("the live session was closed meanwhile.")
            if self._segment is not broken:
                return  # another request was first
            self._segment = self._connect()
        with contextlib.suppress(CloudGone, CloudTimedOut):
            broken.close()
