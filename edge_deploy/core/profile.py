"""How long each layer takes on a device, and how that grows when the device is busy."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_deploy.core.benchmark import Provenance
from edge_deploy.core.errors import BadInput

__all__ = ["PROFILE", "LoadPoint", "ModelProfile", "Power", "Slowdown"]

PROFILE = "profile.json"
# A profile adds up when layers and overhead together come this close to the whole.
ADDS_UP_WITHIN = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """Time under contention over time on the idle device, by linear interpolation between measured knots.

    Attributes:
        at: Load or memory pressure of each knot, increasing, 0 to 1.
        factor: As long as `at`; 1 at an idle device.
    """

    at: tuple[float, ...] = (0.0,)
    factor: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if (
            not self.at
            or len(self.at) != len(self.factor)
            or any(b <= a for a, b in zip(self.at, self.at[1:], strict=False))
        ):
            raise BadInput(f"slowdown: {len(self.at)} increasing knots and {len(self.factor)} factors do not match.")
        if any(not math.isfinite(value) or value <= 0 for value in self.factor):
            raise BadInput("slowdown: factors must be positive and finite.")

    def __call__(self, at: np.ndarray | float) -> np.ndarray:
        """The factor at each load or pressure; outside the sweep the nearest knot's."""
        return np.asarray(np.interp(at, self.at, self.factor))

    def covers(self, at: np.ndarray | float) -> np.ndarray:
        """Whether each load or pressure lies within what was measured."""
        return (np.asarray(at) >= self.at[0]) & (np.asarray(at) <= self.at[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """One raw measurement under contention.

    Attributes:
        what: "cpu": every core loaded by the share `at`; "cores": the share `at` of the cores loaded fully, the others
            idle; "memory": the share `at` of the free memory held by others.
        seconds: Mean of one call under the load; `idle_s`: without it, in the same round.
    """

    what: Literal["cpu", "cores", "memory"]
    at: float
    round: int
    seconds: float
    idle_s: float

    @property
    def factor(self) -> float:
        """Time under load over time without."""
        return self.seconds / self.idle_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Power figures of a device, in watts; the energy of a request is a sum of these times durations.

    Attributes:
        compute_w: Above idle while it computes.
        send_w: Above idle while it sends.
        receive_w: Above idle while it receives.
        wait_w: Above idle while it waits for the cloud.
    """

    compute_w: float
    send_w: float
    receive_w: float
    wait_w: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile:
    """Seconds per layer of one artifact on one idle device.

    Attributes:
        artifact: Its name; `sha256` is that of the model file, empty where there is none (a published table).
        device: Name of the device.
        kernels: Runtime, version and kernel set.
        provenance: An estimate can never pass for a measurement.
        source: "runtime profiler", "timed prefixes", or the estimator and what it was fitted on.
        layer_s: Seconds of each layer of the `LayerGraph`, by layer name.
        overhead_s: Seconds of one call that belong to no layer.
        whole_s: Seconds of the whole model in one call, measured; for an estimate the sum.
        memory_bytes: By layer name: memory that running it needs beyond weights; empty where unknown.
        codec_s_per_byte: By name of a codec: seconds of encoding and of decoding each byte of an uncoded boundary;
            codecs that were not measured are left out.
        cpu: Slowdown by CPU load of others; `memory`: by memory pressure.
        load_points: The raw measurements that `cpu` and `memory` were fitted to; empty where none were made.
    """

    artifact: str
    sha256: str
    device: str
    kernels: str
    provenance: Provenance
    source: str
    layer_s: dict[str, float]
    overhead_s: float
    whole_s: float
    threads: int = 1
    batch: int = 1
    memory_bytes: dict[str, int] = field(default_factory=dict)
    cpu: Slowdown = Slowdown()
    memory: Slowdown = Slowdown()
    power: Power | None = None
    notes: tuple[str, ...] = ()
    load_points: tuple[LoadPoint, ...] = ()
    codec_s_per_byte: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = [*self.layer_s.values(), self.overhead_s, self.whole_s]
        if any(not math.isfinite(value) or value < 0 for value in values):
            raise BadInput(f"profile of {self.artifact} on {self.device}: a duration is negative or not finite.")

    @property
    def sum_s(self) -> float:
        """Layers and overhead together."""
        return sum(self.layer_s.values()) + self.overhead_s

    @property
    def adds_up(self) -> bool:
        """Whether layers and overhead come within a tenth of the whole."""
        return abs(self.sum_s - self.whole_s) <= ADDS_UP_WITHIN * self.whole_s
