"""The child processes of one conversion: started before they are needed, so that two things happen at a time.

While the source's framework captures the model, the toolchain of the first target is being imported; while a target
lowers, the float model runs on the evaluation samples and the runtime that will prove the file is being imported.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from converters.capture import is_large, source_child
from converters.contracts import Lowered, LowerRequest
from converters.lower import lower_all, target_child
from converters.verify import runtime_child
from edge_deploy.api.request import ConvertRequest
from edge_deploy.core.child import Child
from edge_deploy.core.errors import ToolchainError

__all__ = ["Workers"]


class Workers:
    """To be used in a `with` block, which ends every process that still runs.

    Attributes:
        source: For everything that the source's framework does.
        is_frugal: Only one process at a time holds a framework; nothing is started before it is needed.
    """

    def __init__(self, request: ConvertRequest) -> None:
        """Start what is needed first: the source's framework and the toolchain of the first target.

        Raises:
            BadInput: No source takes the request, or there is no such target.
        """
        self._children: list[Child] = []
        self._lock = Lock()
        self._is_closed = False
        self._targets: dict[str, Child] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lower")
        try:
            self.is_frugal = is_large(request.capture)
            self.source = self._started(lambda: source_child(request.capture))
            if not self.is_frugal:
                first = request.targets[0]
                self._targets[first] = self._started(lambda: target_child(first))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process; once more does nothing."""
        with self._lock:
            self._is_closed = True
            children, self._children = self._children, []
        for child in children:
            child.close()
        self._pool.shutdown(cancel_futures=True)

    def lower(self, target: str, request: LowerRequest) -> Future[Lowered]:
        """See `converters.lower.lower`; one after another, in the order of the calls."""
        return self._pool.submit(self._lower, target, request)

    def end_toolchains(self) -> None:
        """End the processes that lower; the next lowering starts another."""
        for target in tuple(self._targets):
            self.end(self._targets.pop(target))

    def runtime(self, target: str) -> Child:
        """A process that begins to import the runtime of what the target writes."""
        return self._started(lambda: runtime_child(target))

    def end(self, child: Child) -> None:
        """End a process that is needed no more."""
        with self._lock:
            self._children = [other for other in self._children if other is not child]
        child.close()

    def _lower(self, target: str, request: LowerRequest) -> Lowered:
        if target not in self._targets:  # only one toolchain is held in memory
            self.end_toolchains()
            self._targets[target] = self._started(lambda: target_child(target))
        return lower_all(target, [request], child=self._targets[target])[0]

    def _started(self, start: Callable[[], Child]) -> Child:
        with self._lock:
            if self._is_closed:
                raise ToolchainError("the conversion was ended.")
            child = start()
            self._children.append(child)
        return child
