import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.calibration.stability import expected_spans, growth_of, unsettled_ranges
from converters.calibration.statistics import LayerStatistics

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=7)


def _layer(highs, name="conv"):
    return LayerStatistics(layer=name, lows=(0.0,) * len(highs), highs=tuple(float(high) for high in highs))


@settings(max_examples=60, deadline=None)
@given(values=VALUES, count=st.integers(1, 7))
def test_the_expected_span_is_the_mean_over_all_subsets(values, count):
    count = min(count, len(values))
    by_hand = np.mean([max(some) - min(some) for some in itertools.combinations(values, count)])
    array = np.array([values])
    assert expected_spans(array, array, count)[0] == pytest.approx(by_hand, abs=1e-9)


def test_bounded_values_settle_and_the_finding_falls_silent():
    layers = [_layer(row) for row in np.random.default_rng(0).uniform(0.9, 1.0, size=(5, 200))]
    assert growth_of(layers).more == 0
    assert list(unsettled_ranges(layers, 200)) == []


def test_more_samples_are_asked_for_while_ranges_still_grow():
    layers = [_layer(row) for row in np.random.default_rng(1).uniform(0, 1, size=(20, 12))]
    found = growth_of(layers)
    assert found.more is not None and found.more_low <= found.more <= 200
    (finding,) = [each for each in unsettled_ranges(layers, 12) if each.kind == "more-samples"]
    assert f"about {found.more} more samples" in finding.remedy


@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_holds_when_the_samples_are_really_added(seed):
    values = np.random.default_rng(seed).uniform(0, 1, size=(20, 4000))
    need = growth_of([_layer(row[:12]) for row in values]).more
    assert need > 0
    settled = growth_of([_layer(row[: 12 + need]) for row in values])
    assert settled.last_doubling < 0.03


def test_a_heavy_tail_is_told_from_ranges_that_will_settle():
    values = 1.0 + np.random.default_rng(3).pareto(0.7, size=(10, 64))
    layers = [_layer(row) for row in values]
    assert growth_of(layers).more is None
    kinds = {finding.kind: finding for finding in unsettled_ranges(layers, 64)}
    assert "unstable-range" in kinds
    assert "--ranges" in kinds["more-samples"].remedy


def test_too_few_samples_are_said_to_be_too_few():
    (finding,) = unsettled_ranges([_layer([1.0, 2.0])], 2)
    assert finding.kind == "more-samples" and "too few" in finding.text
