"""What LoadGen is asked for: scenario, mode and run length, with the numbers that belong to each.

Run lengths follow MLPerf Mobile's: normal has at least 1024 queries and 60 to 600 s, quick 128 and 10 to 60 s, rapid 64
and 6 to 60 s; an offline run of normal length has at least 24,576 samples. Where a 99th percentile counts, there are
never fewer than the 662 queries that early stopping needs for it. The scenarios are LoadGen's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_deploy.core.errors import BadInput

__all__ = ["LENGTHS", "PERCENTILES", "SCENARIOS", "LoadGenMode", "LoadGenSettings", "RunLength", "Scenario"]

Scenario: TypeAlias = Literal["single-stream", "multi-stream", "server", "offline"]
LoadGenMode: TypeAlias = Literal["performance", "accuracy"]
RunLengthName: TypeAlias = Literal["normal", "quick", "rapid"]

SCENARIOS: tuple[Scenario, ...] = ("single-stream", "multi-stream", "server", "offline")
PERCENTILES: dict[Scenario, float] = {"single-stream": 0.90, "multi-stream": 0.99, "server": 0.99, "offline": 0.90}
MULTI_STREAM_SAMPLES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLength:
    """How long a run is at least and at most.

    Attributes:
        queries: At least; the offline scenario has one query, of `offline_samples`.
    """

    queries: int
    offline_samples: int
    least_s: float
    most_s: float


LENGTHS: dict[RunLengthName, RunLength] = {
    "normal": RunLength(queries=1024, offline_samples=24_576, least_s=60.0, most_s=600.0),
    "quick": RunLength(queries=128, offline_samples=3072, least_s=10.0, most_s=60.0),
    "rapid": RunLength(queries=64, offline_samples=1536, least_s=6.0, most_s=60.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenSettings:
    """One run of LoadGen.

    Attributes:
        qps: Queries a second that the server scenario sends; 0 elsewhere.
        latency_limit_s: Within which 99 % of the server's queries must be answered; 0 elsewhere.
        seed: Of LoadGen's choice of samples and of its arrival times.
    """

    scenario: Scenario
    mode: LoadGenMode = "performance"
    length: RunLength = LENGTHS["normal"]
    qps: float = 0.0
    latency_limit_s: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.scenario not in SCENARIOS:
            problems.append(f"scenario = {self.scenario!r}: must be one of {', '.join(SCENARIOS)}.")
        if self.mode not in ("performance", "accuracy"):
            problems.append(f"mode = {self.mode!r}: must be performance or accuracy.")
        if self.scenario == "server" and (self.qps <= 0 or self.latency_limit_s <= 0):
            problems.append(
                f"server: qps = {self.qps:g}, latency limit = {self.latency_limit_s:g} s: both must be positive."
            )
        if problems:
            raise BadInput(*problems)
