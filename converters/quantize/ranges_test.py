import numpy as np
import pytest

from converters.quantize.ranges import HistogramObserver, MinMaxObserver, Range
from edge_deploy.core.errors import BadInput


def test_extremes_are_the_true_ones_whatever_the_order():
    arrays = [np.random.default_rng(i).normal(size=50) for i in range(20)]
    found = []
    for order in (arrays, arrays[::-1]):
        observer = MinMaxObserver(name="x")
        for array in order:
            observer.see(array)
        found.append(observer.range())
    joined = np.concatenate(arrays)
    assert found[0] == found[1] == Range(low=joined.min(), high=joined.max())


def test_nan_is_refused_with_the_tensor_named():
    with pytest.raises(BadInput, match="tensor conv_3"):
        MinMaxObserver(name="conv_3").see(np.array([1.0, np.nan]))


def test_percentiles_clip_equal_shares_on_both_sides():
    values = np.random.default_rng(0).normal(size=100_000)
    observer = HistogramObserver(extremes=Range(low=values.min(), high=values.max()))
    for part in np.split(values, 10):
        observer.see(part)
    found = observer.range(99.0)
    low, high = np.percentile(values, [0.5, 99.5])
    assert found.low == pytest.approx(low, abs=0.02) and found.high == pytest.approx(high, abs=0.02)


def test_one_outlier_does_not_widen_a_percentile_range():
    values = np.append(np.linspace(0, 1, 99_999), 1000.0)
    observer = HistogramObserver(extremes=Range(low=0.0, high=1000.0))
    observer.see(values)
    assert observer.range(99.9).high < 2


def test_a_constant_keeps_its_range():
    observer = HistogramObserver(extremes=Range(low=2.0, high=2.0))
    observer.see(np.full(5, 2.0))
    assert observer.range(99.0) == Range(low=2.0, high=2.0)
