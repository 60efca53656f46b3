"""How long each point of a search takes, measured in turns on this host: the fastest is one that was timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converters.search.finding import SearchPoint
from device_tests.benchmark import benchmark
from edge_deploy.core.benchmark import percentiles, ratio, verdict

__all__ = ["timed"]

ROUNDS = 12
MIN_SECONDS = 0.3  # of each point


def timed(points: Sequence[SearchPoint], folder: Path) -> tuple[list[SearchPoint], tuple[str, ...]]:
    """The points with the median seconds of a call at one thread, and what the interleaved run shows of the fastest.

    Args:
        folder: Holds an artifact for each point that has not failed, by its name.

    Raises:
        DeviceError: A process that ran a model died.
    """
    made = [point for point in points if not point.failure]
    reports = benchmark([folder / point.name for point in made], rounds=ROUNDS, min_seconds=MIN_SECONDS)
    found = {point.name: report for point, report in zip(made, reports, strict=True)}
    seconds = {name: percentiles(report).p50_s for name, report in found.items()}
    order = sorted(seconds, key=lambda name: seconds[name])
    notes = []
    for other in order[1:2]:
        shown = ratio(found[order[0]], found[other])
        notes.append(
            f"{order[0]} takes {shown.median:.2f} ({shown.low:.2f} to {shown.high:.2f}, 95 %) of the time of the next, "
            f"{other}: {verdict(shown)}"
        )
    return [replace(point, seconds=seconds.get(point.name)) for point in points], tuple(notes)
