"""How a live session behaves, in one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edge_deploy.core.errors import BadInput
from partitioner.setting import Setting

__all__ = ["PATIENCE_S", "LiveOptions"]

PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """How a live session behaves.

    Attributes:
        setting: What the policy believes of ticks, switches and fallbacks; `setting.warm` are the cuts whose halves
            are loaded at the start, None for as many as the memory budget holds. Without an answer the edge's own
            comes after a second unless it says otherwise.
        codec: How the boundary is encoded.
        switch: A module of `partitioner.live.switching`.
        memory_bytes: What loaded halves may take together, the whole model for fallbacks included.
        fallback: Answer on the edge with the whole model when the cloud does not.
        deadline_s: Of a request that names none; infinite for none.
        breaker_failures: Failures in a row after which nobody waits for the cloud.
        probe_idle_s: Without transfers for so long, a small one is made to see what the link is like; infinite: never.
        threads: Of the edge's interpreter.
    """

    setting: Setting = field(default_factory=lambda: Setting(fallback_after_s=PATIENCE_S))
    codec: str = "raw"
    switch: str = "warm-standby"
    memory_bytes: float = math.inf
    fallback: bool = True
    deadline_s: float = math.inf
    breaker_failures: int = 3
    probe_idle_s: float = 5.0
    threads: int = 1

    def __post_init__(self) -> None:
        problems = [
            f"run: {name} = {getattr(self, name)}: must be above 0."
            for name in ("memory_bytes", "deadline_s", "probe_idle_s")
            if not getattr(self, name) > 0
        ]
        if problems:
            raise BadInput(*problems)
