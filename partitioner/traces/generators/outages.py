"""Outages: the link goes down for exponential times, on top of the rates that are there already."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_deploy.core.errors import BadInput
from partitioner.traces.generators.bursts import on_off

__all__ = ["FIELDS", "series"]

FIELDS = ("uplink_bps", "downlink_bps")


def series(
    time_s: np.ndarray,
    rng: np.random.Generator,
    values: Mapping[str, np.ndarray],
    *,
    up_s: float = 120.0,
    down_s: float = 5.0,
) -> dict[str, np.ndarray]:
    """The rates of `values`, 0 during outages.

    Args:
        up_s: Mean time between outages; down_s: mean length of one.

    Raises:
        BadInput: There are no rates yet: outages interrupt a link, they do not make one.
    """
    missing = [name for name in FIELDS if name not in values]
    if missing:
        raise BadInput(f"outages: interrupt a link, and none is there yet; write markov-link+outages ({missing[0]}).")
    down = on_off(time_s, rng, off_s=up_s, on_s=down_s) > 0
    return {name: np.where(down, 0.0, values[name]) for name in FIELDS}
