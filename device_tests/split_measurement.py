"""What one measured split execution gave: raw seconds of every part, request by request."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["PARTS", "SplitMeasurement"]

PARTS = ("total_s", "edge_s", "encode_s", "uplink_s", "cloud_s", "downlink_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitMeasurement:
    """Requests through edge half, shaped link and cloud half, one after the other; warm-up is not among them.

    Both ends run on one machine and read one monotonic clock, so that each direction has its own time. The parts add
    up to the total up to the decoding of the answer.

    Attributes:
        total_s: From having the inputs to having the outputs, seconds of each request.
        edge_s: Running the edge half; 0 without one.
        encode_s: Turning what crosses into bytes, on the edge.
        uplink_s: From the first byte sent to the last one received, one-way delay included; 0 when nothing crosses.
        cloud_s: Decoding, running the cloud half and encoding its outputs; 0 without one.
        downlink_s: From the first byte of the answer sent to the last one received.
        up_bytes: Bytes of tensors that one request sends.
        down_bytes: Bytes of tensors that come back.
        wire_up_bytes: The same with the framing.
        wire_down_bytes: The same with the framing.
        notes: E.g. that edge and cloud shared one core.
    """

    total_s: tuple[float, ...]
    edge_s: tuple[float, ...]
    encode_s: tuple[float, ...]
    uplink_s: tuple[float, ...]
    cloud_s: tuple[float, ...]
    downlink_s: tuple[float, ...]
    up_bytes: int = 0
    down_bytes: int = 0
    wire_up_bytes: int = 0
    wire_down_bytes: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, part)) for part in PARTS}
        if lengths == {0} or len(lengths) != 1:
            raise BadInput(f"split measurement: parts of {sorted(lengths)} requests: must be as many, at least one.")
        if any(not math.isfinite(value) or value < 0 for part in PARTS for value in getattr(self, part)):
            raise BadInput("split measurement: a duration is negative or not finite.")

    @property
    def wire_s(self) -> tuple[float, ...]:
        """Both directions together, by request."""
        return tuple(up + down for up, down in zip(self.uplink_s, self.downlink_s, strict=True))

    def median_s(self, part: str = "total_s") -> float:
        """The median of one of `PARTS` or of "wire_s", seconds."""
        return float(np.median(getattr(self, part)))
