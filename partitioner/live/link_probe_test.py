"""What the link carries is found out also where nothing small enough could be sent as a request."""

import pytest

from edge_deploy.core.clock import ManualClock
from edge_deploy.core.tensor import TensorInfo
from partitioner.live.halves import EdgeHalf
from partitioner.live.link_estimate import LinkEstimate
from partitioner.live.link_probe import LinkProbe
from partitioner.live.pretend import PretendCloud, PretendSegment
from partitioner.live.remote import Remote

RTT_S = 0.02


class Link(PretendSegment):
    """Takes its time for every byte of padding."""

    def __init__(self, clock, rate_bps):
        super().__init__(PretendCloud(tails={}))
        self.clock, self.rate_bps, self.sent = clock, rate_bps, 0

    def is_ready(self, *, deadline_s, padding=0):
        self.clock.advance(RTT_S + 8 * padding / self.rate_bps)
        self.sent += padding
        return True


@pytest.mark.parametrize("rate_bps", [0.5e6, 8e6, 60e6])
def test_a_padded_message_tells_the_rate_where_every_boundary_is_large(rate_bps):
    clock = ManualClock()
    segment = Link(clock, rate_bps)
    image = TensorInfo(name="x", shape=(1, 224, 224, 3), dtype="float32")
    half = EdgeHalf(cut="all-cloud", head=None, signature=None, up=(image,), down=(image,), bytes=0)
    link = LinkEstimate()
    probe = LinkProbe((half,), Remote(lambda: segment, digest="", codec="raw", clock=clock), idle_s=1.0)
    for _ in range(60):
        clock.advance(1.0)
        now_s = clock.now_s()
        probe.run(now_s, link.state(now_s), link, clock, last=())
    found = link.state(clock.now_s())
    assert found.uplink_bps == pytest.approx(rate_bps, rel=0.25)
    assert found.rtt_s == pytest.approx(RTT_S, rel=0.1)
    assert segment.sent < 30 * 60_000  # light: ever more rarely while nobody needs it
