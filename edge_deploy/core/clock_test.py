import pytest

from edge_deploy.core.clock import ManualClock, SystemClock, resolution_s


def test_the_system_clock_never_runs_backwards():
    clock = SystemClock()
    times = [clock.now_s() for _ in range(100)]
    assert times == sorted(times)


def test_a_manual_clock_moves_only_when_it_is_turned():
    clock = ManualClock()
    assert clock.now_s() == clock.now_s() == 0.0
    clock.advance(2.5)
    assert clock.now_s() == 2.5
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)


def test_the_resolution_is_the_smallest_step_that_is_seen():
    assert resolution_s(ManualClock(tick_s=0.25)) == 0.25
    assert resolution_s(ManualClock()) == 0.0
    assert 0 < resolution_s(SystemClock()) < 1e-2
