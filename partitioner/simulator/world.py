"""What the simulated world is like beyond the trace: the cloud's workers, batches and failures, and the truth."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from edge_deploy.core.errors import BadInput
from partitioner.cut_table import CutTable
from partitioner.measured import Probes
from partitioner.setting import Setting

__all__ = ["World"]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The world.

    Attributes:
        workers: Requests or batches that the cloud works on at the same time.
        batch_limit: Most requests in a batch, all with the same cut; 1 for none.
        batch_wait_s: How long the first of a batch waits for others.
        batch_share: Time of each further member of a batch, over the time of the first.
        cloud_fails: Start and end of times in which the cloud does not answer, in order.
        truth: What halves really take, where that differs from the table that policies believe in; same cuts.
    """

    setting: Setting = field(default_factory=Setting)
    probes: Probes = field(default_factory=Probes)
    workers: int = 4
    batch_limit: int = 1
    batch_wait_s: float = 0.0
    batch_share: float = 0.5
    cloud_fails: tuple[tuple[float, float], ...] = ()
    truth: CutTable | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.workers < 1:
            problems.append(f"world: {self.workers} workers: must be at least 1.")
        if self.batch_limit < 1:
            problems.append(f"world: batch limit {self.batch_limit}: must be at least 1.")
        if not (math.isfinite(self.batch_wait_s) and self.batch_wait_s >= 0):
            problems.append(f"world: batch wait {self.batch_wait_s} s: must be finite and not negative.")
        if not (math.isfinite(self.batch_share) and self.batch_share >= 0):
            problems.append(f"world: batch share {self.batch_share}: must be finite and not negative.")
        ends = [moment for pair in self.cloud_fails for moment in pair]
        if any(b <= a for a, b in itertools.pairwise(ends)) or any(moment < 0 for moment in ends):
            problems.append(f"world: cloud failures {self.cloud_fails}: must be START-END, in order, not overlapping.")
        if problems:
            raise BadInput(*problems)
