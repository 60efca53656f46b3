"""How often values leave what an artifact can hold: the float model's on given samples, against the stored ranges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from converters.contracts import Captured
from converters.debugger.diagnose import QUIET, Opened
from converters.debugger.measure import SiteStatistics, batches
from converters.debugger.rigs import open_rig
from edge_deploy.core.child import run_in_child
from edge_deploy.core.serde import from_json

__all__ = ["LayerOverflow", "overflow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOverflow:
    """One input or layer whose values are stored as integers with one scale.

    Attributes:
        clipped: Share of the float model's values outside what can be stored, by more than rounding.
        low: Smallest value that the float model computes here, and `high` the largest.
        stored_low: Smallest value that the artifact can hold, and `stored_high` the largest.
    """

    layer: str
    clipped: float
    low: float
    high: float
    stored_low: float
    stored_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    layers: tuple[LayerOverflow, ...]


def overflow(captured: Captured, artifact: Opened, feeds: Path, *, limit: int) -> tuple[LayerOverflow, ...]:
    """Of every input and layer with a fixed range, in topological order; empty where an artifact has none.

    Args:
        feeds: npz with one array [samples, ...] for each source input.
        limit: Look at that many samples, spread evenly.

    Raises:
        Unsupported, BadInput, ToolchainError: As `open_rig` and `Rig.see`.
    """
    answer = run_in_child(
        "converters.debugger.overflow:overflow_here",
        {"captured": captured, "artifact": artifact, "feeds": feeds, "limit": limit},
        stage=f"{artifact.name}: values against stored ranges",
        environment=QUIET,
    )
    return from_json(_Found, answer, where="overflow").layers


def overflow_here(captured: Any, artifact: Any, feeds: str, limit: int) -> _Found:
    """The child's part of `overflow`."""
    model = from_json(Captured, captured, where="captured model")
    opened = from_json(Opened, artifact, where="artifact")
    with np.load(feeds, allow_pickle=False) as archive:
        count = len(archive[model.inputs[0].name])
        chosen = np.unique(np.linspace(0, count - 1, min(count, limit)).astype(int))
        samples = {info.name: archive[info.name][chosen] for info in model.inputs}
    with TemporaryDirectory(prefix="edge-deploy-") as scratch:
        rig = open_rig(
            model,
            opened.folder,
            opened.target,
            opened.spec,
            opened.outcomes,
            Path(scratch),
            samples=len(chosen),
        )
        sites = [SiteStatistics(site=site) for site in rig.sites if site.grid is not None]
        for feed, _ in batches(samples, rig.batch) if sites else ():
            seen = rig.see(feed)
            for site in sites:
                site.add(seen)
    return _Found(layers=tuple(_layer(site) for site in sites if site.values))


def _layer(seen: SiteStatistics) -> LayerOverflow:
    grid = seen.site.grid
    assert grid is not None, "only sites with a grid are looked at"
    return LayerOverflow(
        layer=seen.site.layer,
        clipped=seen.clipped / seen.values,
        low=seen.low,
        high=seen.high,
        stored_low=grid.low,
        stored_high=grid.high,
    )
