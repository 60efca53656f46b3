"""Ranges of rows: never worse than the extremes, and the published search where rows have a bias."""

from __future__ import annotations

import numpy as np
import pytest

from converters.quantize.row_ranges import (
    greedy_affine,
    greedy_scales,
    row_errors,
    stochastic_codes,
    widest_scales,
)


def test_no_row_is_worse_than_with_its_extremes_and_most_are_better_at_four_bits() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    widest = row_errors(rows, widest_scales(rows, bits=4, dtype=np.float16), bits=4)
    searched = row_errors(rows, greedy_scales(rows, bits=4, dtype=np.float16), bits=4)
    assert (searched <= widest).all()
    assert searched.sum() < 0.9 * widest.sum()


def test_an_outlier_is_clipped_where_that_costs_less_than_coarse_steps_for_the_others() -> None:
    row = np.linspace(-1, 1, 64, dtype=np.float32)[None].copy()
    row[0, 0] = 1.5
    assert greedy_scales(row, bits=4, dtype=np.float16)[0] < widest_scales(row, bits=4, dtype=np.float16)[0]


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_what_is_stored_and_clip_nothing_without_a_search(bits: int) -> None:
    rows = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    scales = widest_scales(rows, bits=bits, dtype=np.float16)
    assert scales.dtype == np.float16
    top = {4: 7.5, 8: 127.5}[bits]
    assert (np.abs(rows) / scales.astype(np.float32)[:, None]).max() <= top + 0.5 * (bits == 4)


def test_rows_of_zeros_have_a_positive_scale_and_no_error() -> None:
    rows = np.zeros((3, 4), np.float32)
    scales = greedy_scales(rows, bits=4, dtype=np.float16)
    assert (scales > 0).all()
    assert not row_errors(rows, scales, bits=4).any()


def test_stochastic_rounding_is_right_on_average_and_never_a_whole_step_off() -> None:
    rows = np.full((4000, 3), 0.3, np.float32)
    scales = np.full(4000, 0.25, np.float32)
    values = stochastic_codes(rows, scales, bits=4, seed=3) * 0.25
    assert np.abs(values - 0.3).max() < 0.25
    assert abs(values.mean() - 0.3) < 0.01


def test_stochastic_rounding_of_a_row_does_not_depend_on_where_its_chunk_begins() -> None:
    rows = np.random.default_rng(2).standard_normal((50, 5)).astype(np.float32)
    scales = widest_scales(rows, bits=4, dtype=np.float16)
    whole = stochastic_codes(rows, scales, bits=4, seed=7)
    later = stochastic_codes(rows[20:], scales[20:], bits=4, seed=7, start=20)
    np.testing.assert_array_equal(whole[20:], later)


def test_the_search_for_rows_with_a_bias_is_the_one_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rows = np.random.default_rng(4).standard_normal((60, 16)).astype(np.float32)
    low, high = greedy_affine(rows, bits=4)
    found = [torch.choose_qparams_optimized(torch.from_numpy(row), 16, 200, 0.16, 4) for row in rows]
    np.testing.assert_allclose(high, [float(most) for most, _ in found], rtol=1e-5)
    np.testing.assert_allclose(low, [float(least) for _, least in found], rtol=1e-5)
