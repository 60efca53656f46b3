"""The same session for asyncio: requests run in threads, and cancelling a task cancels its request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType

import numpy as np

from partitioner.live.session import LiveSession
from partitioner.live.status import Status
from runtimes.serving.contracts import Cancellation

__all__ = ["AsyncLiveSession"]


class AsyncLiveSession:
    """Use it in an `async with` block; requests may be awaited side by side.

    Args:
        make: Opens the session, e.g. `partial(live, request)`; called in a thread, since it loads models.
        at_once: Requests that are under way at most; more wait for their turn.
    """

    def __init__(self, make: Callable[[], LiveSession], *, at_once: int = 32) -> None:
        self._make = make
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="live")
        self._session: LiveSession | None = None

    async def infer(
        self, inputs: Mapping[str, np.ndarray], *, deadline_s: float | None = None
    ) -> dict[str, np.ndarray]:
        """As `LiveSession.infer`; a task that is cancelled gives up its request."""
        assert self._session is not None, "use it in an `async with` block"
        cancel = Cancellation()
        call = partial(self._session.infer, inputs, deadline_s=deadline_s, cancel=cancel)
        waiting = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await waiting
        except asyncio.CancelledError:
            cancel.ask()
            raise

    @property
    def status(self) -> Status:
        """As `LiveSession.status`."""
        assert self._session is not None, "use it in an `async with` block"
        return self._session.status

    async def __aenter__(self) -> AsyncLiveSession:
        self._session = await asyncio.get_running_loop().run_in_executor(self._threads, self._make)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await asyncio.get_running_loop().run_in_executor(self._threads, self._session.close)
        self._threads.shutdown()
