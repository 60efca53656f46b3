"""A stream of requests that a client keeps open: a request over it takes a third less than a call of its own.

One request at a time uses it; others, and whatever goes wrong on it, take the ordinary call.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from edge_deploy.core.require import require
from runtimes.serving.contracts import Cancellation
from runtimes.serving.errors import CloudGone, CloudTimedOut
from runtimes.serving.messages import STREAM, method_path

__all__ = ["FastLane"]

OTHERWISE = "UNIMPLEMENTED"
PAUSE = 100  # requests after a stream that was ended before it answered any


class FastLane:
    """May be asked by several threads.

    Args:
        channel: gRPC's.
        metadata: Headers of the stream.
        where: The server, for messages.
    """

    def __init__(self, channel: Any, *, metadata: tuple[tuple[str, str], ...], where: str) -> None:
        self._rpc_error = require("grpc", extra="run").RpcError
        self._open = channel.stream_stream(method_path(STREAM))
        self._metadata, self._where = metadata, where
        self._turn = threading.Lock()
        self._waiting: SimpleQueue[bytes | None] | None = None
        self._stream: Any = None
        self._watch = _Watch()
        self._is_off = self._has_answered = False
        self._pause = 0

    def ask(self, request: bytes, *, wait_s: float, cancel: Cancellation | None = None) -> bytes | None:
        """The bytes of a ModelStreamInferResponse; None where the ordinary call has to be made.

        Raises:
            CloudTimedOut: No answer came within the time.
            CloudGone: The request was cancelled.
        """
        if self._is_off or not self._turn.acquire(blocking=False):
            return None
        try:
            if self._pause:
                self._pause -= 1
                return None
            until_s = time.monotonic() + wait_s
            stream = self._stream or self._begin()
            if cancel is not None:
                cancel.when_asked(stream.cancel)
            self._watch.begin(until_s, stream.cancel)
            assert self._waiting is not None
            self._waiting.put(request)
            answer: bytes = next(stream)
            self._has_answered = True
        except (StopIteration, self._rpc_error, ValueError) as error:  # ValueError: the channel was closed meanwhile
            self._end()
            if isinstance(error, StopIteration) and not self._has_answered:
                self._pause = PAUSE  # the server has no room for one more
            if cancel is not None and cancel.is_asked:
                raise CloudGone(f"{self._where}: the request was cancelled.") from error
            if time.monotonic() >= until_s:
                raise CloudTimedOut(f"{self._where}: no answer within {wait_s:.3g} s.") from error
            code = error.code() if isinstance(error, self._rpc_error) else None
            self._is_off = code is not None and code.name == OTHERWISE
            return None
        finally:
            self._watch.end()
            self._turn.release()
        return answer

    def close(self) -> None:
        """End the stream; a request under way is cancelled."""
        self._is_off = True
        self._end()
        self._watch.close()

    def _begin(self) -> Any:
        waiting: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting, self._has_answered = waiting, False
        self._stream = self._open(iter(waiting.get, None), metadata=self._metadata)
        return self._stream

    def _end(self) -> None:
        stream, waiting = self._stream, self._waiting
        self._stream = None
        if stream is not None:
            stream.cancel()
        if waiting is not None:
            waiting.put(None)  # ends the thread that gRPC reads requests with


class _Watch:
    """Acts when a moment passes: one thread for all requests, which costs a request nothing but an assignment."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due_s = self._wakes_s = math.inf
        self._act: Callable[[], object] = int
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def begin(self, due_s: float, act: Callable[[], object]) -> None:
        """Call `act` at that moment of the monotonic clock, unless `end` is called before."""
        self._act = act
        self._due_s = due_s
        if due_s < self._wakes_s:
            with self._changed:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                    self._thread.start()
                self._changed.notify()

    def end(self) -> None:
        """Nothing is to be done any more."""
        self._due_s = math.inf

    def close(self) -> None:
        """End the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                # First told, then looked again: whoever begins meanwhile sees that it has to wake this thread.
                self._wakes_s = self._due_s
                if self._due_s < self._wakes_s:
                    continue
                left_s = self._wakes_s - time.monotonic()
                if left_s > 0:
                    self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
                    continue
                act, self._due_s = self._act, math.inf
                act()
