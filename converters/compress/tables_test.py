"""Tables without training: values on the grid that files store, searched ranges, hot rows that stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from converters.compress.tables import TablePlan, compress_table, hottest, try_table
from edge_deploy.core.errors import BadInput


def table(rows: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((rows, 16)) * 10.0 ** rng.uniform(-2, 0, (rows, 1))).astype(np.float32)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("scale", ["row", "table"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_values_are_integers_times_scales_that_files_hold(bits: int, scale: str, rounding: str) -> None:
    made = compress_table(table(), TablePlan(bits=bits, scale=scale, rounding=rounding))  # type: ignore[arg-type]
    own = made.scales.reshape(-1, 1)
    codes = np.rint(made.values / own)
    np.testing.assert_array_equal(codes * own, made.values)
    assert codes.min() >= (-8 if bits == 4 else -127)
    assert codes.max() <= (7 if bits == 4 else 127)
    assert made.scales.shape == ((400,) if scale == "row" else (1,))
    if scale == "row":
        np.testing.assert_array_equal(made.scales.astype(np.float16).astype(np.float32), made.scales)


def test_searched_ranges_lose_less_than_extremes_and_rows_less_than_tables() -> None:
    errors = {(each.scale, each.range, each.rounding): each.error for each in try_table(table(), bits=4)}
    assert errors["row", "greedy", "nearest"] < errors["row", "min-max", "nearest"]
    assert errors["table", "greedy", "nearest"] <= errors["table", "min-max", "nearest"]
    assert errors["row", "greedy", "nearest"] < errors["table", "greedy", "nearest"]
    assert errors["row", "min-max", "nearest"] < errors["row", "min-max", "stochastic"]


def test_hot_rows_keep_their_values_and_do_not_widen_the_scale_of_the_others() -> None:
    weight = table()
    weight[7] *= 1000
    plain = compress_table(weight, TablePlan(scale="table"))
    made = compress_table(weight, TablePlan(scale="table", hot_bits=32), np.array([7]))
    np.testing.assert_array_equal(made.values[7], weight[7])
    assert made.scales[0] < plain.scales[0]
    assert made.error < plain.error


def test_the_hottest_rows_of_all_tables_win_and_ties_go_to_the_first() -> None:
    counts = {"a": np.array([5, 0, 9, 1]), "b": np.array([9, 1, 0, 0, 0, 0])}
    assert {name: rows.tolist() for name, rows in hottest(counts, 0.3).items()} == {"a": [0, 2], "b": [0]}
    assert {name: rows.tolist() for name, rows in hottest(counts, 0.4).items()} == {"a": [0, 2, 3], "b": [0]}
    every = hottest(counts, 1.0)
    assert {name: rows.tolist() for name, rows in every.items()} == {"a": [0, 2, 3], "b": [0, 1]}


def test_tables_that_no_scale_fits_are_refused() -> None:
    weight = table(4)
    weight[0, 0] = np.nan
    with pytest.raises(BadInput, match="NaN"):
        compress_table(weight, TablePlan())
    with pytest.raises(BadInput, match="float16 scales"):
        compress_table(np.full((2, 2), 1e7, np.float32), TablePlan())
    with pytest.raises(BadInput, match="must be 4 or 8"):
        TablePlan(bits=6)
