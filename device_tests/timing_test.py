import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_tests.timing import Plan, plan_runs, take_values, warm_up
from edge_deploy.core.clock import ManualClock


class Call:
    """Takes as long as `seconds` says for each call in turn; the last value stays."""

    def __init__(self, clock, *seconds):
        self.clock, self.seconds, self.numbers = clock, seconds, []

    def __call__(self, number):
        self.numbers.append(number)
        self.clock.advance(self.seconds[min(len(self.numbers), len(self.seconds)) - 1])


def test_a_steady_call_is_warm_after_two_blocks():
    clock = ManualClock()
    warm = warm_up(Call(clock, 0.01), clock)
    assert warm.steady
    assert len(warm.values_s) == 10


def test_warm_up_lasts_until_the_falling_latency_settles():
    clock = ManualClock()
    falling = [0.1 * 0.9**n for n in range(40)]
    call = Call(clock, *falling, 0.1 * 0.9**40)
    warm = warm_up(call, clock, most_s=100)
    assert warm.steady
    assert len(warm.values_s) > 40
    assert warm.values_s[:3] == pytest.approx(falling[:3])
    assert call.numbers == list(range(len(warm.values_s)))


def test_a_call_that_never_settles_ends_with_the_time_and_is_called_unsteady():
    clock = ManualClock()
    warm = warm_up(Call(clock, *(1.1**n for n in range(200))), clock, most_s=5.0)
    assert not warm.steady
    assert len(warm.values_s) < 100


def test_very_short_calls_share_one_value_so_that_the_clock_can_see_them():
    assert plan_runs(1e-6, 1e-6, rounds=10, runs=100, min_seconds=0) == Plan(values_per_round=10, calls_per_value=100)
    assert plan_runs(1e-3, 1e-6, rounds=10, runs=100, min_seconds=0).calls_per_value == 1


@given(
    st.floats(1e-7, 10), st.floats(0, 1e-4), st.integers(1, 20), st.integers(1, 500), st.floats(0, 5)
)  # fmt: skip
def test_the_plan_fulfils_every_wish_it_does_not_cap(run_s, step_s, rounds, runs, min_seconds):
    plan = plan_runs(run_s, step_s, rounds=rounds, runs=runs, min_seconds=min_seconds)
    values = plan.values_per_round * rounds
    assert values >= runs
    assert plan.calls_per_value * run_s >= 100 * step_s * 0.999
    assert values * plan.calls_per_value * run_s >= min_seconds * 0.999 or plan.values_per_round >= 1000


def test_values_are_seconds_per_call_and_the_collector_is_back_afterwards():
    clock = ManualClock()
    call = Call(clock, 0.5, 1.5, 2.0)
    assert take_values(call, clock, Plan(values_per_round=2, calls_per_value=2)) == (1.0, 2.0)
    assert call.numbers == [0, 1, 2, 3]
    assert gc.isenabled()
