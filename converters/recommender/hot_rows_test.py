"""The directory of hot rows finds every row; cold rows are read as if they were a table of their own."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from converters.recommender.hot_rows import ColdRows, build_directory, cold_of


@settings(deadline=None)
@given(rows=some.integers(1, 1500), share=some.floats(0, 1), seed=some.integers(0, 99))
def test_every_row_is_found_where_it_stands(rows: int, share: float, seed: int) -> None:
    hot = np.flatnonzero(np.random.default_rng(seed).random(rows) < share)
    is_hot, places = build_directory(hot, rows).find(np.arange(rows))
    np.testing.assert_array_equal(np.flatnonzero(is_hot), hot)
    np.testing.assert_array_equal(places[is_hot], np.arange(len(hot)))
    np.testing.assert_array_equal(places[~is_hot], np.arange(rows - len(hot)))


def test_a_directory_takes_little_more_than_two_bits_a_row() -> None:
    assert 8 * build_directory(np.arange(0, 25600, 7), 25600).bytes / 25600 == 2.125


@settings(deadline=None)
@given(share=some.floats(0, 1), seed=some.integers(0, 99), start=some.integers(0, 120), length=some.integers(0, 120))
def test_cold_rows_are_the_others_in_their_order(share: float, seed: int, start: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((100, 3)).astype(np.float32)
    hot = np.flatnonzero(rng.random(100) < share)
    wanted = np.delete(table, hot, axis=0)
    cold = ColdRows(table, hot)
    assert cold.shape == wanted.shape
    np.testing.assert_array_equal(cold[start : start + length], wanted[start : start + length])
    np.testing.assert_array_equal(cold_of(table[:, 0], hot), wanted[:, 0])
