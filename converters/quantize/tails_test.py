import numpy as np
import pytest

from converters.quantize.ranges import Range
from converters.quantize.tails import TailObserver, tail_rank


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.999, 100.0])
def test_the_range_is_that_of_all_values_sorted(percentile):
    values = np.random.default_rng(0).standard_normal((40, 500)).astype(np.float32)
    rank = tail_rank(percentile, values.size)
    observer = TailObserver(rank=rank)
    for part in values:
        observer.see(part.reshape(5, 100))
    ordered = np.sort(values, axis=None)
    assert observer.range() == Range(low=float(ordered[rank]), high=float(ordered[-1 - rank]))


def test_the_order_of_the_arrays_does_not_matter():
    values = np.random.default_rng(1).exponential(size=(30, 64)).astype(np.float32)
    found = []
    for order in (values, values[::-1], np.sort(values, axis=None).reshape(30, 64)):
        observer = TailObserver(rank=7)
        for part in order:
            observer.see(part)
        found.append(observer.range())
    assert found[0] == found[1] == found[2]


def test_values_that_repeat_count_each():
    observer = TailObserver(rank=2)
    for part in ([0.0, 0.0], [0.0, 0.0, 5.0], [9.0, 9.0, 7.0]):
        observer.see(np.array(part, np.float32))
    assert observer.range() == Range(low=0.0, high=7.0)


def test_nothing_seen_is_an_empty_range():
    assert TailObserver(rank=0).range() == Range(low=0.0, high=0.0)
