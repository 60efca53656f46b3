import math

from hypothesis import given, settings
from hypothesis import strategies as st

from partitioner.live.link_estimate import LinkEstimate

RATES = st.floats(1e5, 1e9)
TIMES = st.floats(1e-3, 0.3)


@settings(deadline=None)
@given(uplink=RATES, downlink=RATES, rtt_s=TIMES, up=st.integers(2_000, 500_000), down=st.integers(4, 100))
def test_transfers_and_round_trips_tell_the_uplink(uplink, downlink, rtt_s, up, down):
    link = LinkEstimate()
    for tick in range(8):
        link.round_trip(tick, rtt_s)
        link.transfer(tick + 0.5, up, down, rtt_s + 8 * up / uplink + 8 * down / downlink)
        state = link.state(tick + 1)
    assert math.isclose(state.rtt_s, rtt_s)
    sent_s, floor_s = 8 * up / uplink, max(0.0002, 0.1 * rtt_s)
    if sent_s > floor_s and 8 * down / downlink < 0.02 * sent_s:
        assert not state.at_least
        assert 0.9 * uplink < state.uplink_bps < 1.1 * uplink
    elif sent_s + 8 * down / downlink < floor_s:
        assert state.at_least
        assert state.uplink_bps <= uplink * 1.001 * (1 + 8 * down / downlink / sent_s)


def test_a_rate_that_falls_is_known_within_a_few_ticks_and_one_that_rises_too():
    link = LinkEstimate()
    seen = []
    for tick in range(20):
        rate = 1e7 if tick < 5 or tick >= 12 else 1e6
        link.round_trip(tick, 0.02)
        link.transfer(tick, 50_000, 10, 0.02 + 8 * 50_000 / rate)
        seen.append(link.state(tick).uplink_bps)
    assert seen[4] > 0.95e7
    assert seen[8] < 1.2e6
    assert seen[15] > 0.8e7


def test_a_dead_link_is_dead_until_something_gets_through():
    link = LinkEstimate()
    link.transfer(0.0, 50_000, 10, 0.1)
    link.gone()
    assert link.state(1.0).uplink_bps == 0
    link.round_trip(2.0, 0.02)
    assert link.state(2.0).uplink_bps > 0


def test_a_late_request_bounds_the_uplink_and_the_next_measurement_frees_it():
    link = LinkEstimate()
    link.round_trip(0.0, 0.02)
    link.late(1.0, 10_000, 1.0)
    assert link.state(1.0).uplink_bps == 80_000
    assert link.state(1.0).uplink_age_s == math.inf  # worth a probe
    link.transfer(2.0, 10_000, 10, 0.02 + 8 * 10_000 / 5e6)
    assert 4e6 < link.state(2.0).uplink_bps < 6e6


def test_small_messages_tell_the_round_trip_and_large_answers_the_downlink():
    link = LinkEstimate()
    for at in range(5):
        link.transfer(at, 200, 100, 0.03)
        link.transfer(at, 200, 100_000, 0.03 + 8 * 100_000 / 2e6)
        state = link.state(at)
    assert math.isclose(state.rtt_s, 0.03)
    assert 1.8e6 < state.downlink_bps < 2.2e6


def test_old_round_trips_do_not_outlive_new_ones():
    link = LinkEstimate()
    for at in range(9):
        link.round_trip(at, 0.5)
    link.round_trip(100.0, 0.01)
    assert link.state(100.0).rtt_s == 0.01
