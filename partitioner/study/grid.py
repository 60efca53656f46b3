"""A full grid of conditions for a modelled sweep, by levels of each field."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS
from edge_deploy.core.errors import BadInput

__all__ = ["DEFAULT_GRID", "Grid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Every combination of levels.

    Attributes:
        levels: By field of `CONDITION_FIELDS`, increasing; the last field changes fastest. Downlink follows uplink
            where it is not among them.
    """

    levels: dict[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        problems = [f"grid: {name}: unknown field." for name in self.levels if name not in CONDITION_FIELDS]
        for name, values in self.levels.items():
            if not values or any(b <= a for a, b in itertools.pairwise(values)):
                problems.append(f"grid: {name}: levels must increase, and there must be one at least.")
            elif not all(math.isfinite(value) and value >= 0 for value in values):
                problems.append(f"grid: {name}: levels must be finite and not negative.")
        problems += [f"grid: {name} is missing." for name in ("uplink_bps", "rtt_s") if name not in self.levels]
        if problems:
            raise BadInput(*problems)

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.levels.values())

    @property
    def factors(self) -> tuple[str, ...]:
        """Fields that take more than one level."""
        return tuple(name for name, values in self.levels.items() if len(values) > 1)

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Conditions from `start` to `stop` as arrays by field, ready for `partitioner.cost.cost`."""
        names = list(self.levels)
        places = np.unravel_index(np.arange(start, stop), [len(self.levels[name]) for name in names])
        found = {name: np.asarray(self.levels[name])[place] for name, place in zip(names, places, strict=True)}
        found.setdefault("downlink_bps", found["uplink_bps"])
        return found


def _rates(count: int) -> tuple[float, ...]:
    """Rates from 1 to 100 Mbit/s, equally far apart in the logarithm, in whole kbit/s."""
    return tuple(float(round(rate / 1000)) * 1000 for rate in np.geomspace(1e6, 100e6, count))


def default_levels() -> Mapping[str, tuple[float, ...]]:
    """40,500 conditions: the kinds of the adaptive-DNN study (network, CPU and memory at both ends), finer."""
    loads = (0.0, 0.25, 0.5, 0.75, 1.0)
    return {
        "uplink_bps": _rates(12),
        "rtt_s": (0.002, 0.010, 0.030, 0.060, 0.120),
        "edge_load": loads,
        "cloud_load": loads,
        "edge_memory": (0.0, 0.4, 0.8),
        "cloud_memory": (0.0, 0.4, 0.8),
        "cloud_queue_s": (0.0, 0.05, 0.2),
    }


DEFAULT_GRID = Grid(levels=dict(default_levels()))
