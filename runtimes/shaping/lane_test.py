"""Chunks leave and arrive when the link's arithmetic says; nothing here looks at a clock."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.conditions import CONDITION_FIELDS, Trace
from edge_deploy.core.errors import BadInput
from edge_deploy.core.link import transfer_end
from runtimes.shaping.lane import Lane
from runtimes.shaping.link import ShapedLink, constant_link, trace_link

STEPS = ShapedLink(
    time_s=(0.0, 1.0, 3.0),
    uplink_bps=(8000.0, 0.0, 16000.0),
    downlink_bps=(8.0,) * 3,
    delay_s=(0.1, 0.2, 0.3),
    loss=(0.0,) * 3,
)


def test_a_chunk_takes_its_bits_over_the_rate_and_then_the_delay() -> None:
    lane = Lane(constant_link(uplink_bps=8000, downlink_bps=1, rtt_s=0.2), "up", now_s=5.0)
    passage = lane.admit(1000, now_s=7.0)
    assert (passage.departs_s, passage.arrives_s) == (8.0, 8.1)


def test_chunks_queue_behind_each_other_and_an_idle_link_saves_nothing_up() -> None:
    lane = Lane(constant_link(uplink_bps=8000, downlink_bps=1, rtt_s=0.0), "up", now_s=0.0)
    assert [lane.admit(500, now_s=0.0).departs_s for _ in range(3)] == [0.5, 1.0, 1.5]
    assert lane.backlog_bytes(1.0) == 500
    assert lane.admit(500, now_s=10.0).departs_s == 10.5


def test_a_bucket_lets_a_burst_pass_at_once_after_a_pause() -> None:
    link = ShapedLink(uplink_bps=(8000.0,), downlink_bps=(8000.0,), burst_bytes=1000)
    lane = Lane(link, "up", now_s=0.0)
    assert [lane.admit(500, now_s=0.0).departs_s for _ in range(4)] == [0.0, 0.0, 0.5, 1.0]


def test_a_chunk_waits_through_an_outage_and_has_the_delay_of_the_moment_it_leaves() -> None:
    lane = Lane(STEPS, "up", now_s=100.0)
    assert lane.admit(1000, now_s=100.0).arrives_s == pytest.approx(101.2)
    assert lane.admit(1000, now_s=100.0).arrives_s == pytest.approx(103.5 + 0.3)
    assert (
        Lane(constant_link(uplink_bps=0, downlink_bps=1, rtt_s=0), "up", now_s=0).admit(1, now_s=0).arrives_s
        == math.inf
    )


def test_another_link_moves_what_waits_and_leaves_alone_what_has_left() -> None:
    lane = Lane(constant_link(uplink_bps=8000, downlink_bps=1, rtt_s=2.0), "up", now_s=0.0)
    left, waits = lane.admit(1000, now_s=0.0), lane.admit(1000, now_s=0.0)
    lane.follow(constant_link(uplink_bps=4000, downlink_bps=1, rtt_s=0.2), now_s=1.5)
    assert left.arrives_s == 2.0
    # Half of the second chunk was through; the other half takes 1 s at the new rate.
    assert waits.arrives_s == pytest.approx(2.6)
    lane.follow(constant_link(uplink_bps=0, downlink_bps=1, rtt_s=0.2), now_s=2.0)
    assert waits.arrives_s == math.inf
    lane.follow(constant_link(uplink_bps=2000, downlink_bps=1, rtt_s=0.0), now_s=9.0)
    assert waits.arrives_s == pytest.approx(10.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 3000)), min_size=1, max_size=20))
def test_a_lane_agrees_with_the_simulators_arithmetic(sent: list[tuple[float, int]]) -> None:
    lane, now, free = Lane(STEPS, "up", now_s=0.0), 0.0, 0.0
    for pause, size in sent:
        now += pause
        free = float(transfer_end(np.array(STEPS.time_s), np.array(STEPS.uplink_bps), max(now, free), size))
        assert lane.admit(size, now_s=now).departs_s == pytest.approx(free, abs=1e-9)


def test_jitter_and_stalls_only_add_and_are_the_same_for_a_seed() -> None:
    link = ShapedLink(uplink_bps=(8e6,), downlink_bps=(8e6,), loss=(0.5,), stall_s=0.2, jitter_s=0.01, seed=3)
    passages = [
        [lane.admit(2000, now_s=0.0) for _ in range(50)]
        for lane in (Lane(link, "up", now_s=0.0), Lane(link, "up", now_s=0.0))
    ]
    extra = [[p.arrives_s - p.departs_s for p in one] for one in passages]
    assert extra[0] == extra[1]
    assert min(extra[0]) >= 0
    assert max(extra[0]) >= 0.4


def test_a_trace_becomes_a_link_with_half_its_round_trip_in_each_direction() -> None:
    values = {name: np.zeros(2) for name in CONDITION_FIELDS}
    values.update(uplink_bps=np.array([1e6, 0.0]), downlink_bps=np.array([2e6, 0.0]), rtt_s=np.array([0.1, 0.3]))
    link = trace_link(Trace(time_s=np.array([0.0, 2.0]), end_s=3.0, values=values, source="by hand"))
    assert link.delay_s == (0.05, 0.15)
    assert (link.is_down(1.9), link.is_down(2.0)) == (False, True)


def test_links_that_cannot_be_are_refused_with_all_their_problems() -> None:
    with pytest.raises(BadInput) as caught:
        ShapedLink(time_s=(0.0, 1.0), uplink_bps=(1.0,), downlink_bps=(1.0, 2.0), delay_s=(-1.0, 0.0), loss=(0.0, 0.0))
    assert len(caught.value.problems) == 2
    with pytest.raises(BadInput, match="rates must be finite"):
        constant_link(uplink_bps=-1, downlink_bps=1, rtt_s=0)
