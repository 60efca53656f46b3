"""What a shaped link does over time: rates in both directions, delay, jitter, stalls, outages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_deploy.core.conditions import Trace
from edge_deploy.core.errors import BadInput
from edge_deploy.core.link import RateCurve

__all__ = ["ShapedLink", "constant_link", "trace_link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedLink:
    """A link from the moment on at which the proxy begins to follow it; the last entry holds for ever.

    Attributes:
        time_s: Start of each entry, increasing from 0.
        uplink_bps: Bits per second towards the target, by entry; 0 is an outage.
        downlink_bps: The same back.
        delay_s: One-way delay of each entry, for both directions; half a round trip.
        loss: Share of packets that stall the stream, by entry; costs nothing unless `stall_s` is set.
        jitter_s: Up to so much is added to the delay, uniformly; bytes stay in order.
        stall_s: How long a lost packet holds up everything behind it.
        burst_bytes: Depth of the token bucket: so much passes at once after a pause.
        on_outage: "stall": bytes wait until the link is back. "reset": connections are reset as an outage begins (both
            rates 0) and refused while it lasts.
        seed: Of jitter and stalls.
    """

    time_s: tuple[float, ...] = (0.0,)
    uplink_bps: tuple[float, ...]
    downlink_bps: tuple[float, ...]
    delay_s: tuple[float, ...] = (0.0,)
    loss: tuple[float, ...] = (0.0,)
    jitter_s: float = 0.0
    stall_s: float = 0.0
    burst_bytes: int = 0
    on_outage: Literal["stall", "reset"] = "stall"
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"shaped link: {name} has {len(getattr(self, name))} entries: must be {len(self.time_s)}."
            for name in ("uplink_bps", "downlink_bps", "delay_s", "loss")
            if len(getattr(self, name)) != len(self.time_s)
        ]
        amounts = (*self.delay_s, *self.loss, self.jitter_s, self.stall_s, self.burst_bytes)
        if any(not math.isfinite(value) or value < 0 for value in amounts):
            problems.append("shaped link: delay, loss, jitter, stall and burst must be finite and not negative.")
        if self.on_outage not in ("stall", "reset"):
            problems.append(f"shaped link: on_outage = {self.on_outage!r}: must be 'stall' or 'reset'.")
        if problems:
            raise BadInput(*problems)
        RateCurve(np.array(self.time_s), np.array(self.uplink_bps))
        RateCurve(np.array(self.time_s), np.array(self.downlink_bps))

    def entry(self, at_s: float) -> int:
        """The entry that holds at a time."""
        return max(0, int(np.searchsorted(self.time_s, at_s, side="right")) - 1)

    def is_down(self, at_s: float) -> bool:
        """Whether nothing passes in either direction."""
        entry = self.entry(at_s)
        return self.uplink_bps[entry] == 0 and self.downlink_bps[entry] == 0


def constant_link(*, uplink_bps: float, downlink_bps: float, rtt_s: float, jitter_s: float = 0.0) -> ShapedLink:
    """A link that stays as it is.

    Raises:
        BadInput: A value is negative or not finite.
    """
    return ShapedLink(uplink_bps=(uplink_bps,), downlink_bps=(downlink_bps,), delay_s=(rtt_s / 2,), jitter_s=jitter_s)


def trace_link(
    trace: Trace,
    *,
    stall_s: float = 0.0,
    jitter_s: float = 0.0,
    on_outage: Literal["stall", "reset"] = "stall",
    seed: int = 0,
) -> ShapedLink:
    """The link of a trace of conditions; what the trace says of load and queues is for others.

    Args:
        stall_s: What a lost packet costs; 0 because the rates of a trace are those that remain after losses.
    """
    values = trace.values
    return ShapedLink(
        time_s=tuple(trace.time_s.tolist()),
        uplink_bps=tuple(values["uplink_bps"].tolist()),
        downlink_bps=tuple(values["downlink_bps"].tolist()),
        delay_s=tuple((values["rtt_s"] / 2).tolist()),
        loss=tuple(values["loss"].tolist()),
        stall_s=stall_s,
        jitter_s=jitter_s,
        on_outage=on_outage,
        seed=seed,
    )
