"""What is validated, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput

__all__ = ["Achieved", "Condition", "ValidateRequest", "Validated", "Validation", "difference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateRequest:
    """What is to be run both ways.

    Attributes:
        artifact: A folder that convert wrote, or a `.tflite` file.
        inputs: Samples; None for random ones.
        halves: Folder that split wrote, with heads and tails; None to split here.
        cuts: Stay at each of these, one after the other; empty for up to three legal ones spread over the model.
        policies: Let each of these move the cut as well.
        traces: Files or generators, as for simulate.
        links: Constant links: uplink and downlink in bits per second, round trip in seconds.
        seconds: Of each condition; `rate_hz`: requests a second, at random moments.
        edge_cores, cloud_cores: CPU quota of both sides; None for none.
        link_by: "tun" (namespaces, packets are shaped; root), "proxy" (connections are), or "auto": tun where it can
            be had.
    """

    artifact: Path | str
    inputs: Path | None = None
    halves: Path | None = None
    cuts: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()
    links: tuple[tuple[float, float, float], ...] = ()
    seconds: float = 20.0
    rate_hz: float = 5.0
    codec: str = "raw"
    edge_cores: float | None = None
    cloud_cores: float | None = None
    fallback_after_s: float = 5.0
    seed: int = 0
    link_by: Literal["auto", "tun", "proxy"] = "auto"

    def __post_init__(self) -> None:
        problems = []
        if not self.traces and not self.links:
            problems.append("validate-simulation: give at least one trace or one constant link.")
        if self.link_by not in ("auto", "tun", "proxy"):
            problems.append(f"validate-simulation: link by {self.link_by!r}: must be auto, tun or proxy.")
        if not self.seconds > 0 or not self.rate_hz > 0:
            problems.append(f"validate-simulation: {self.seconds} s at {self.rate_hz}/s: both must be above 0.")
        if problems:
            raise BadInput(*problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that is run both ways.

    Attributes:
        cut: Fixed; empty where `policy` moves it.
    """

    link: str
    trace: Trace
    cut: str = ""
    policy: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.link}, {self.policy or self.cut}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Achieved:
    """What the link really gave, measured by a second connection over one that is shaped alike.

    Attributes:
        asked_bps, achieved_bps: Mean uplink while bytes were always waiting.
        asked_rtt_s, achieved_rtt_s: Of a message of one byte, medians.
    """

    link: str
    asked_bps: float
    achieved_bps: float
    asked_rtt_s: float
    achieved_rtt_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """One condition, both ways. Times in seconds.

    Attributes:
        answered: By way of answering: how many requests live, and how many simulated.
        parts: Means of the parts of a request that the cloud answered: live, and simulated.
        throttled_s: That the edge's quota held it back meanwhile.
        quantiles: Live and simulated latencies at 0, 1, ... 100 %.
        switches: How often the cut moved live, and simulated.
    """

    name: str
    requests: int
    live_median_s: float
    live_p95_s: float
    simulated_median_s: float
    simulated_p95_s: float
    answered: dict[str, tuple[int, int]]
    parts: dict[str, tuple[float, float]]
    throttled_s: float
    quantiles: tuple[tuple[float, ...], tuple[float, ...]]
    switches: tuple[int, int] = (0, 0)

    @property
    def median_error(self) -> float:
        """Of the simulator: positive where it says more than it took."""
        return difference(self.simulated_median_s, self.live_median_s)

    @property
    def p95_error(self) -> float:
        """The same of the 95th percentile."""
        return difference(self.simulated_p95_s, self.live_p95_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Everything.

    Attributes:
        shaped_by: What made the link; `edge_quota`, `cloud_quota`: what held the processes back.
        base_rtt_s: Of a message between the two processes when the link is not shaped; added to every round trip.
        table: By cut: seconds on the edge, in the cloud, bytes up and down, as measured beforehand.
    """

    artifact: str
    codec: str
    seconds: float
    rate_hz: float
    shaped_by: str
    edge_quota: str
    cloud_quota: str
    machine: str
    base_rtt_s: float
    table: dict[str, tuple[float, float, int, int]]
    conditions: tuple[Validated, ...]
    links: tuple[Achieved, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def worst_median_error(self) -> float:
        """The largest, without its sign."""
        return max((abs(each.median_error) for each in self.conditions), default=0.0)

    @property
    def typical_median_error(self) -> float:
        """The median over conditions, without signs."""
        return float(np.median([abs(each.median_error) for each in self.conditions])) if self.conditions else 0.0


def difference(simulated_s: float, live_s: float) -> float:
    """Simulated over live, less one."""
    return simulated_s / live_s - 1.0 if live_s > 0 else 0.0
