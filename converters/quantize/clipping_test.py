import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.quantize.clipping import chosen_range, coarsened, entropy_range, squared_error_range, without_spikes
from converters.quantize.ranges import HistogramObserver, Range
from edge_deploy.core.quant_spec import spec_for_recipe

SHAPES = st.sampled_from(["normal", "relu", "heavy", "shifted", "two-sided"])


def _values(shape, seed, count=3000):
    random = np.random.default_rng(seed)
    normal = random.normal(size=count)
    return {
        "normal": normal,
        "relu": np.maximum(normal, 0.0),
        "heavy": random.standard_t(2, size=count),
        "shifted": normal + 20.0,
        "two-sided": np.concatenate([normal, random.exponential(5.0, size=count // 10)]),
    }[shape]


def _histogram(values):
    observer = HistogramObserver(extremes=Range(low=float(values.min()), high=float(values.max())))
    for part in np.array_split(values, 3):
        observer.see(part)
    return observer


def _quantization_error(values, low, high):
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    zero = round(-low / step)
    codes = np.clip(np.rint(values / step) + zero, 0, 255)
    return float(np.mean(((codes - zero) * step - values) ** 2))


@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10_000))
def test_squared_error_comes_near_the_best_of_all_ranges(shape, seed):
    values = _values(shape, seed)
    found = squared_error_range(_histogram(values).counts, _histogram(values).extremes)
    lows = np.linspace(min(values.min(), 0.0), 0.0, 24, endpoint=False) if values.min() < 0 else [0.0]
    highs = np.linspace(values.max(), 0.0, 48, endpoint=False)
    best = min(_quantization_error(values, low, high) for low in lows for high in highs)
    assert _quantization_error(values, found.low, found.high) <= best * 1.1


@settings(max_examples=15, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10_000))
def test_squared_error_is_never_worse_than_the_extremes(shape, seed):
    values = _values(shape, seed)
    found = squared_error_range(_histogram(values).counts, _histogram(values).extremes)
    # Counted in bins, not in values: what a bin hides may cost a little.
    assert (
        _quantization_error(values, found.low, found.high)
        <= _quantization_error(values, values.min(), values.max()) * 1.02
    )


def _divergence_by_hand(counts, smooth, first, last, levels):
    """Migacz's steps, one bin at a time."""
    p = [float(count) for count in smooth[first:last]]
    p[0] += sum(counts[:first])
    p[-1] += sum(counts[last:])
    q = [0.0] * len(p)
    bounds = [level * len(p) // levels for level in range(levels)] + [len(p)]
    for start, end in itertools.pairwise(bounds):
        held = [place for place in range(start, end) if p[place] > 0]
        for place in held:
            q[place] = sum(smooth[first + start : first + end]) / len(held)
    if sum(q) == 0:
        return math.inf
    divergence = 0.0
    for one, other in zip(p, q, strict=True):
        if one > 0 and other == 0:
            return math.inf
        if one > 0:
            divergence += one / sum(p) * math.log(one / sum(p) / (other / sum(q)))
    return divergence


@settings(max_examples=25, deadline=None)
@given(counts=st.lists(st.integers(0, 40), min_size=64, max_size=64), two_sided=st.booleans())
def test_entropy_finds_what_counting_by_hand_finds(counts, two_sided):
    counts = np.array(counts)
    if not counts.any():
        return
    extremes = Range(low=-64.0 if two_sided else 0.0, high=64.0)
    found = entropy_range(counts, extremes, levels=8, thresholds=32)
    counts = coarsened(counts, 8)
    smooth, bins = without_spikes(counts), len(counts)
    edges = np.linspace(extremes.low, extremes.high, bins + 1)
    tried = []
    for threshold in np.linspace(64.0, 0.0, 32, endpoint=False):
        inside = [place for place in range(bins) if edges[place + 1] > -threshold and edges[place] < threshold]
        if len(inside) >= 8:
            tried.append((_divergence_by_hand(counts, smooth, inside[0], inside[-1] + 1, 8), inside[0], inside[-1] + 1))
    best = min(tried, key=lambda each: each[0])
    if math.isinf(best[0]):
        assert found == extremes
    else:
        # Equal divergences may differ in the last digit.
        ours = [each for each in tried if (found.low, found.high) == (edges[each[1]], edges[each[2]])]
        assert ours and ours[0][0] == pytest.approx(best[0], abs=1e-9)


def test_entropy_clips_one_far_outlier():
    values = np.append(np.random.default_rng(0).normal(size=50_000), 25.0)
    found = chosen_range(_histogram(values), spec_for_recipe("int8", range_method="kl"))
    assert found.high < 10.0 and found.low < -3.0


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_entropy_is_not_led_astray_by_the_zeros_of_a_rectified_tensor(share):
    random = np.random.default_rng(0)
    values = np.abs(random.normal(size=20_000)) * (random.uniform(size=20_000) >= share)
    found = chosen_range(_histogram(values), spec_for_recipe("int8", range_method="kl"))
    assert found.low < 0.01 and found.high > 2.0


def test_entropy_is_not_led_astray_by_what_a_blank_background_becomes():
    random = np.random.default_rng(0)
    values = np.append(np.abs(random.normal(size=60_000)), np.repeat([0.11, 0.31, 0.52], 20_000))
    assert chosen_range(_histogram(values), spec_for_recipe("int8", range_method="kl")).high > 2.5


def test_entropy_clips_nothing_of_a_few_hundred_values():
    values = np.random.default_rng(0).standard_t(3, size=600)
    found = chosen_range(_histogram(values), spec_for_recipe("int8", range_method="kl"))
    assert found.high == pytest.approx(values.max()) and found.low == pytest.approx(values.min())


@pytest.mark.parametrize("method", ["kl", "mse", "min-max", "percentile"])
def test_a_range_stays_within_what_was_seen(method):
    for shape in ("normal", "relu", "heavy", "shifted", "two-sided"):
        values = _values(shape, 1)
        found = chosen_range(_histogram(values), spec_for_recipe("int8", range_method=method))
        assert values.min() - 1e-9 <= found.low < found.high <= values.max() + 1e-9


@pytest.mark.parametrize("method", ["kl", "mse"])
def test_a_constant_keeps_its_range(method):
    found = chosen_range(_histogram(np.full(9, 2.0)), spec_for_recipe("int8", range_method=method))
    assert found == Range(low=2.0, high=2.0)
