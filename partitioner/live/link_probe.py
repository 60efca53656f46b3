"""Light active probes for a link that no request has used lately: a small message, now and then a boundary of zeros.

The second is a request like any other to the server, so that any server of the protocol answers it; it is the
smallest boundary that still tells the rate. Where all are too large to be sent for nothing, the small message is
padded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_deploy.core.artifact import Signature
from edge_deploy.core.clock import Clock
from edge_deploy.core.cut import tensor_bytes
from edge_deploy.core.errors import BadInput
from partitioner.live.halves import EdgeHalf
from partitioner.live.happened import BY_CLOUD, Happened
from partitioner.live.link_estimate import SMALL_BYTES, LinkEstimate, LinkState
from partitioner.live.remote import Remote
from runtimes.calling import zeros_for
from runtimes.serving.errors import CloudOverloaded, CloudRefused, CloudTimedOut

__all__ = ["LinkProbe"]

LOOK_S = 1.0
# Of the boundary that is sent: enough to tell the rate of slow links, little enough for them.
ENOUGH_BYTES, MOST_BYTES = 4 * 1024, 64 * 1024
MOST_PADDING = 60_000
# Of the round trip, and at least: what the padding's time is to be.
STANDS_OUT, LEAST_S = 0.5, 0.005
# Each probe in a row that nobody needed waits longer for the next.
LONGEST_PAUSE = 8.0


class LinkProbe:
    """Decides what to probe at a tick, and does it; used by one thread.

    Args:
        idle_s: Without transfers for so long, a boundary is sent.
    """

    def __init__(self, halves: Sequence[EdgeHalf], remote: Remote, *, idle_s: float) -> None:
        self._remote, self._idle_s = remote, idle_s
        self._half = _cheapest(halves)
        self._pause = 1.0
        self._last_s = -float("inf")

    def run(
        self, now_s: float, state: LinkState, link: LinkEstimate, clock: Clock, *, last: Sequence[Happened]
    ) -> None:
        """Probe if it is time.

        Args:
            last: Requests since the last tick.

        Raises:
            CloudError: The cloud does not answer.
        """
        if any(one.how == BY_CLOUD for one in last):
            self._pause = 1.0
            return
        if self._idle_s == float("inf"):
            return
        link.round_trip(now_s, self._remote.ping(deadline_s=LOOK_S))
        due = self._idle_s * self._pause
        if state.uplink_age_s < due or now_s - self._last_s < due:
            return
        self._last_s = now_s
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if self._half is None:
            self._pad(now_s, state, link, clock)
            return
        zeros = zeros_for_boundary(self._half)
        begun = clock.now_s()
        try:
            called = self._remote.call(self._half, zeros, wait_s=LOOK_S)
        except CloudTimedOut:  # a slow link, not a dead one: the small message came back
            link.late(now_s, sum(array.nbytes for array in zeros.values()), clock.now_s() - begun)
            return
        except (CloudOverloaded, CloudRefused):
            return  # the server has other things to do, or no such tail: nothing about the link
        done = clock.now_s()
        reply = called.reply
        theirs = max(reply.queue_s, 0.0) + max(reply.compute_s, 0.0)
        wire_s = done - called.began_s - reply.encode_s - theirs
        link.transfer(done, reply.sent_bytes, reply.received_bytes, wire_s)

    def _pad(self, now_s: float, state: LinkState, link: LinkEstimate, clock: Clock) -> None:
        """So many bytes that their time stands out of the round trip's at the rate that is known."""
        wanted = state.uplink_bps / 8 * max(STANDS_OUT * state.rtt_s, LEAST_S)
        padding = round(min(max(wanted, ENOUGH_BYTES), MOST_PADDING))
        try:
            wire_s = self._remote.ping(deadline_s=LOOK_S, padding=padding)
        except CloudTimedOut:
            link.late(now_s, padding, LOOK_S)
            return
        link.transfer(clock.now_s(), padding, 0, wire_s)


def zeros_for_boundary(half: EdgeHalf) -> dict[str, np.ndarray]:
    """Zeros in place of what crosses: valid ids, harmless numbers."""
    return zeros_for(Signature(name="probe", inputs=half.up, outputs=()))


def _cheapest(halves: Sequence[EdgeHalf]) -> EdgeHalf | None:
    """The cut with the smallest boundary that tells a rate, else what comes nearest; None if all are too big."""
    sized = []
    for half in halves:
        if not half.crosses:
            continue
        try:
            size = sum(tensor_bytes(info) for info in half.up)
        except BadInput:
            continue  # a dynamic size
        if size <= MOST_BYTES:
            sized.append((size, half))
    enough = [(size, half) for size, half in sized if size >= ENOUGH_BYTES]
    if enough:
        return min(enough, key=lambda pair: pair[0])[1]
    usable = [(size, half) for size, half in sized if size > SMALL_BYTES]
    return max(usable, key=lambda pair: pair[0])[1] if usable else None
