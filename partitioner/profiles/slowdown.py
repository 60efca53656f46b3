"""Slowdown curves from a sweep under load: medians by level, made to grow, 1 on the idle device."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edge_deploy.core.profile import LoadPoint, ModelProfile, Slowdown
from partitioner.profiles.isotonic import isotonic_means

__all__ = ["fit_slowdown", "with_slowdowns"]

# More of a difference than this between as much load on all cores and on some of them is worth a note.
WORTH_A_NOTE = 0.15


def fit_slowdown(points: Sequence[LoadPoint], what: str) -> Slowdown:
    """The curve of one kind of load; flat where it was not measured.

    Each level's median over the rounds, then an isotonic fit weighted by the number of rounds, never below 1: other
    people's load does not make a program faster, so that less is noise.
    """
    levels: dict[float, list[float]] = {0.0: [1.0]}
    for point in points:
        if point.what == what and point.at > 0:
            levels.setdefault(point.at, []).append(point.factor)
    at = sorted(levels)
    medians = [float(np.median(levels[level])) for level in at]
    # The idle device is 1 by definition and not by measurement: it does not take part in the pooling.
    grown = isotonic_means(medians[1:], [len(levels[level]) for level in at[1:]])
    return Slowdown(at=tuple(at), factor=(1.0, *(float(max(1.0, factor)) for factor in grown)))


def with_slowdowns(profile: ModelProfile, points: Sequence[LoadPoint], *, notes: Sequence[str] = ()) -> ModelProfile:
    """The profile with curves for CPU load and memory pressure, the raw points beside them."""
    cpu, memory = fit_slowdown(points, "cpu"), fit_slowdown(points, "memory")
    said = [f"slowdown from {len(points)} points in {len({point.round for point in points})} rounds", *notes]
    cores = fit_slowdown(points, "cores")
    for share, factor in zip(cores.at[1:], cores.factor[1:], strict=True):
        spread = float(cpu(share))
        if abs(factor - spread) > WORTH_A_NOTE * spread:
            said.append(
                f"{share:.0%} of the cores fully busy slow down {factor:.2f}-fold, {share:.0%} load on every core "
                f"{spread:.2f}-fold: the curve is that of load on every core"
            )
    return dataclasses.replace(
        profile, cpu=cpu, memory=memory, load_points=tuple(points), notes=(*profile.notes, *said)
    )
