"""Serve artifacts to edges: cut them first where asked, tune batches where asked, then run the worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge_deploy.api.split import split
from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.cut import ALL_CLOUD
from runtimes.serving.server import Serving
from runtimes.serving.workers import Started, Workers

__all__ = ["serve"]


def serve(
    serving: Serving,
    *,
    cuts: Sequence[str] = (),
    all_cuts: bool = False,
    workers: int = 1,
    metrics: tuple[str, int] | None = None,
    started: Callable[[Started, Workers], None] = lambda started, workers: None,
    told: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        serving: Its artifacts may also be artifacts that are not cut yet, and `.tflite` files.
        cuts: Cut the artifacts so, in a folder for the time of serving; the whole model is served as well.
        all_cuts: Every legal prefix.
        metrics: Host and port of the page for Prometheus.
        started: Called once all workers listen.
        told: What is worth telling meanwhile.

    Raises:
        BadInput: Artifacts that cannot be served, or an address the world could use without showing who it is.
        Unsupported: A cut that cannot be had.
        DeviceError: The address cannot be listened on.
        MissingExtra: gRPC, prometheus_client or a runtime is not installed.
    """
    with _cut(serving.artifacts, cuts=cuts, all_cuts=all_cuts, told=told) as folders:
        ready = Workers(replace(serving, artifacts=folders), count=workers, metrics=metrics, told=told)
        for warning in ready.warnings:
            told(warning)
        asyncio.run(_serve(ready, started))


async def _serve(workers: Workers, started: Callable[[Started, Workers], None]) -> None:
    loop, told_to_stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows, and threads
            loop.add_signal_handler(number, told_to_stop.set)
    try:
        started(await workers.start(), workers)
        await told_to_stop.wait()
    finally:
        await workers.stop()


@contextmanager
def _cut(
    paths: Sequence[Path], *, cuts: Sequence[str], all_cuts: bool, told: Callable[[str], None]
) -> Iterator[tuple[Path, ...]]:
    """Folders that can be served as they are."""
    with tempfile.TemporaryDirectory(prefix="edge-deploy-halves-") as scratch:
        folders = []
        for number, path in enumerate(paths):
            if path.is_file() or ((cuts or all_cuts) and (path / MANIFEST).is_file()):
                told(f"cut {path}")
                out = Path(scratch) / str(number)
                split(path, cuts=(ALL_CLOUD, *cuts), all_cuts=all_cuts, out=out)
                folders.append(out)
            else:
                folders.append(path)
        yield tuple(folders)
