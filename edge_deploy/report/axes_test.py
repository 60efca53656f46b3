import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.report.axes import scale_for

amounts = st.lists(st.floats(1e-9, 1e12), min_size=1, max_size=20)
anything = st.lists(st.floats(-1e9, 1e9).map(lambda value: round(value, 3)), min_size=1, max_size=20)


@given(amounts)
def test_every_amount_lies_inside_and_order_is_kept(values):
    scale = scale_for(values, start=10.0, end=110.0, may_be_logarithmic=True)
    placed = [scale(value) for value in sorted(values)]
    assert placed == sorted(placed)
    assert all(10.0 <= at <= 110.0 for at in placed)
    assert 1 <= len(scale.ticks) <= 8
    assert all(scale.low <= tick * (1 + 1e-9) and tick <= scale.high * (1 + 1e-9) for tick in scale.ticks)


@given(anything)
def test_every_value_lies_inside_also_upside_down(values):
    scale = scale_for(values, start=300.0, end=20.0, may_be_logarithmic=False)
    assert all(20.0 <= scale(value) <= 300.0 for value in values)
    assert 1 <= len(scale.ticks) <= 8


def test_amounts_that_differ_by_much_get_a_logarithmic_scale():
    assert scale_for([1e-6, 1e-3], start=0, end=1, may_be_logarithmic=True).logarithmic
    assert not scale_for([1e-3, 2e-3], start=0, end=1, may_be_logarithmic=True).logarithmic
    assert not scale_for([0.0, 1e-3], start=0, end=1, may_be_logarithmic=True).logarithmic


def test_ticks_are_round_numbers():
    assert scale_for([0.81, 0.86], start=0, end=1, may_be_logarithmic=False).ticks == pytest.approx((0.82, 0.84, 0.86))
    assert scale_for([60e3, 8e6], start=0, end=1, may_be_logarithmic=True).ticks == (1e5, 3e5, 1e6, 3e6, 1e7)
