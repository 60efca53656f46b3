"""Streams of requests: one request after the other over one call, which costs less than a call for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Streams"]

LOOKS = 4  # at a stream in the shortest time that it may take


@dataclass(slots=True, kw_only=True, eq=False)
class _Stream:
    """One of them.

    Attributes:
        since_s: When it began to do what it does.
        waits: For a request; else it answers one.
        ended: By this side.
    """

    task: asyncio.Task[Any]
    since_s: float
    waits: bool = True
    ended: bool = False


class Streams:
    """All of one server; lives in one event loop.

    Args:
        answer: From the bytes of a request to those of its answer, errors included.
        silent_s: A stream on which no whole request came for so long is ended: it may be one that never sends its last
            byte. Whoever has more to ask opens another one.
        answer_s: One whose peer takes so long to fetch an answer is ended too.
        most: At once; more are ended as soon as they begin, and their peers make calls instead.
    """

    def __init__(
        self, answer: Callable[[bytes], Awaitable[bytes]], *, silent_s: float, answer_s: float, most: int
    ) -> None:
        self._answer, self._silent_s, self._answer_s, self._most = answer, silent_s, answer_s, most
        self._open: set[_Stream] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_ended = False

    async def serve(self, context: Any) -> None:
        """Answer until the peer, or this side, ends the stream."""
        from grpc.aio import EOF

        if len(self._open) >= self._most:
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        stream = _Stream(task=task, since_s=loop.time())
        self._open.add(stream)
        if self._timer is None:
            self._look()
        try:
            while not self._is_ended:
                raw = await context.read()
                if raw is EOF:
                    return
                stream.waits, stream.since_s = False, loop.time()
                await context.write(await self._answer(raw))
                stream.waits, stream.since_s = True, loop.time()
        except asyncio.CancelledError:
            if not stream.ended:
                raise
            task.uncancel()
        finally:
            self._open.discard(stream)

    def end(self) -> None:
        """Take no more requests on any stream; those that were read are answered."""
        self._is_ended = True
        for stream in self._open:
            if stream.waits:
                self._cancel(stream)

    def _look(self) -> None:
        """End those that take too long."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for stream in self._open:
            # An answer has its time to be computed, and as much to be fetched.
            if now - stream.since_s > (self._silent_s if stream.waits else 2 * self._answer_s):
                self._cancel(stream)
        again_s = min(self._silent_s, self._answer_s) / LOOKS
        self._timer = loop.call_later(again_s, self._look) if self._open else None

    def _cancel(self, stream: _Stream) -> None:
        if not stream.ended:
            stream.ended = True
            stream.task.cancel()
