"""Transfers over a changing link take exactly as long as their bits do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.errors import BadInput
from edge_deploy.core.link import RateCurve, transfer_end


def by_hand(times: list[float], rates: list[float], start: float, size: float) -> float:
    """The same, one entry after another."""
    if size == 0:
        return start
    bits, now = 8 * size, start
    for index, rate in enumerate(rates):
        until = times[index + 1] if index + 1 < len(times) else math.inf
        if until <= now:
            continue
        if rate > 0 and now + bits / rate <= until:
            return now + bits / rate
        if until == math.inf:
            return math.inf
        bits -= (until - now) * rate
        now = until
    raise AssertionError("the last entry lasts for ever")


def test_a_transfer_over_a_constant_link_takes_its_bits_over_the_rate() -> None:
    assert transfer_end(np.array([0.0]), np.array([8e6]), 2.0, 1e6) == 3.0


def test_a_transfer_waits_through_an_outage_and_ends_where_it_began_if_its_last_bit_just_left() -> None:
    times, rates = np.array([0.0, 1.0, 5.0]), np.array([800.0, 0.0, 800.0])
    ends = transfer_end(times, rates, np.array([0.5, 0.5, 2.0]), np.array([50.0, 100.0, 100.0]))
    np.testing.assert_allclose(ends, [1.0, 5.5, 6.0])


def test_a_link_that_stays_down_never_ends_a_transfer_and_carries_nothing_at_once() -> None:
    times, rates = np.array([0.0, 1.0]), np.array([800.0, 0.0])
    assert transfer_end(times, rates, 3.0, 1.0) == math.inf
    assert transfer_end(times, rates, 3.0, 0.0) == 3.0


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=8),
)
def test_many_transfers_at_once_end_as_one_by_one(entries: list[tuple[int, int]], sent: list[tuple[int, int]]) -> None:
    times = [0.0, *np.cumsum([float(length) for length, _ in entries])[:-1].tolist()]
    rates = [8.0 * rate for _, rate in entries]
    start, size = (np.array(column, dtype=float) for column in zip(*sent, strict=True))
    ends = transfer_end(np.array(times), np.array(rates), start, size)
    np.testing.assert_allclose(ends, [by_hand(times, rates, a, b) for a, b in zip(start, size, strict=True)])
    there = np.isfinite(ends) & (size > 0)
    curve = RateCurve(np.array(times), np.array(rates))
    span = curve.carried(ends[there]) - curve.carried(start[there])
    np.testing.assert_allclose(span, 8 * size[there])


@pytest.mark.parametrize(
    ("times", "rates", "size"), [([0, 0], [1, 1], 1), ([0], [-1], 1), ([0], [1], -1), ([0, 1], [1], 1), ([], [], 1)]
)
def test_a_link_that_cannot_be_is_refused(times: list[float], rates: list[float], size: float) -> None:
    with pytest.raises(BadInput, match="link:"):
        transfer_end(np.array(times, dtype=float), np.array(rates, dtype=float), 0.0, size)
