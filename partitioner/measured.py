"""What probes say about a trace: never the moment itself, only what was measured before, with their noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput

__all__ = ["Probes", "measured", "tick_times"]

_NOISY = ("uplink_bps", "downlink_bps", "rtt_s")
_LOADS = ("edge_load", "edge_memory", "cloud_load", "cloud_memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """How conditions are measured.

    Attributes:
        delay_s: Age of the newest measurement when it reaches the controller, on top of the tick it was taken over.
        noise: Standard deviation of the logarithm of measured rates and round trips; 0.1 is about 10 %.
        load_noise: Standard deviation of measured loads and memory pressure, as shares.
        seed: Of the noise.
    """

    delay_s: float = 0.0
    noise: float = 0.0
    load_noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("delay_s", "noise", "load_noise"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise BadInput(f"probes: {name} = {value}: must be finite and not negative.")


def tick_times(duration_s: float, tick_s: float) -> np.ndarray:
    """Moments of decisions from 0 on, before `duration_s`; shape (ticks,)."""
    return np.arange(max(1, math.ceil(duration_s / tick_s - 1e-9))) * tick_s


def measured(trace: Trace, ticks: np.ndarray, tick_s: float, probes: Probes | None = None) -> dict[str, np.ndarray]:
    """Conditions that the controller is told at each tick: means over the tick before, older by the probes' delay.

    The first tick is told how the trace starts: a device probes before it decides for the first time.

    Returns:
        By field of `Conditions`, each of shape (ticks,).
    """
    probes = probes or Probes()
    edges = np.concatenate((trace.time_s, [trace.end_s]))
    end = np.maximum(ticks - probes.delay_s, 0.0)
    begin = np.maximum(end - tick_s, 0.0)
    random = np.random.default_rng([probes.seed, 1])
    told = {}
    for name in CONDITION_FIELDS:
        values = trace.values[name]
        sums = np.concatenate(([0.0], np.cumsum(values * np.diff(edges))))
        # Beyond its end the trace keeps its last values.
        at_end, at_begin = (np.interp(t, edges, sums) + np.maximum(t - edges[-1], 0) * values[-1] for t in (end, begin))
        width = end - begin
        mean = np.where(width > 0, (at_end - at_begin) / np.where(width > 0, width, 1.0), values[0])
        if name in _NOISY and probes.noise:
            mean = mean * np.exp(random.normal(0.0, probes.noise, len(ticks)))
        if name in _LOADS and probes.load_noise:
            mean = mean + random.normal(0.0, probes.load_noise, len(ticks))
        told[name] = np.clip(mean, 0.0, 1.0) if name in (*_LOADS, "loss") else np.maximum(mean, 0.0)
    return told
