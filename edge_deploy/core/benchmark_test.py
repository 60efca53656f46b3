import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_deploy.core.benchmark import (
    BenchmarkReport,
    Machine,
    Ratio,
    RunConditions,
    _outer_rank,
    median_interval,
    percentiles,
    ratio,
    verdict,
)
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput
from edge_deploy.core.serde import dumps, loads

REPORT = BenchmarkReport(
    artifact="net",
    format="tflite",
    recipe="int8",
    sha256="0" * 64,
    model_bytes=1000,
    device=Device(name="host", kind="host", isa="x86_64", cores=2, ram_bytes=1 << 30),
    machine=Machine(
        cpu_model="cpu", isa="x86_64", features=("avx2",), cores=2, ram_bytes=1 << 30, governor=None, kernel="Linux 6"
    ),
    conditions=RunConditions(threads=1, kernels="null", batch=1, signature="main", inputs="random, seed 0"),
    provenance="measured",
    group="g",
    load_s=0.1,
    warm_up_s=(9.0, 5.0),
    rounds_s=((1.0, 2.0), (3.0, 4.0)),
    base_rss_bytes=1,
    peak_rss_bytes=2,
    load_average_before=(0.5, 0.4, 0.3),
    layer_s={"conv": 0.5},
    layer_source="profiler",
)


def with_rounds(rounds, **changes):
    return dataclasses.replace(REPORT, rounds_s=tuple(tuple(values) for values in rounds), **changes)


def test_a_report_survives_the_trip_through_json():
    assert loads(BenchmarkReport, dumps(REPORT), where="report") == REPORT


def test_statistics_are_those_of_the_runs_and_ignore_the_warm_up():
    summary = percentiles(REPORT)
    assert (summary.runs, summary.min_s, summary.p50_s, summary.max_s) == (4, 1.0, 2.5, 4.0)
    assert summary.mean_s == 2.5
    assert summary.std_s == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    assert summary.p10_s < summary.p50_s < summary.p90_s < summary.p99_s < 9.0


def test_a_report_without_runs_or_with_impossible_ones_does_not_exist():
    with pytest.raises(BadInput, match="no measured run"):
        with_rounds([])
    with pytest.raises(BadInput, match="negative or not finite"):
        with_rounds([[1.0, -1.0]])
    with pytest.raises(BadInput, match="negative or not finite"):
        with_rounds([[1.0, math.inf]])


@given(st.floats(0.1, 10), st.lists(st.floats(0.01, 100), min_size=6, max_size=20))
def test_a_constant_factor_is_found_whatever_the_machine_did_meanwhile(factor, slowness):
    base = with_rounds([[s, s] for s in slowness])
    found = ratio(with_rounds([[factor * s, factor * s] for s in slowness]), base)
    assert found.median == pytest.approx(factor)
    assert found.low == pytest.approx(factor)
    assert found.high == pytest.approx(factor)


def test_equal_latencies_are_not_resolved_and_clear_ones_are():
    noise = [1.02, 0.98, 1.01, 0.99, 1.03, 0.97, 1.0, 1.0]
    base = with_rounds([[1.0]] * 8)
    assert not ratio(with_rounds([[x] for x in noise]), base).resolved
    assert ratio(with_rounds([[2 * x] for x in noise]), base).resolved


def test_the_interval_is_the_tightest_pair_of_ranks_that_covers_the_median_with_95_percent():
    for count in range(6, 14):
        rank = _outer_rank(count)
        cover = [
            sum(rank < sum(below) < count - rank for below in itertools.product((0, 1), repeat=count)) / 2**count,
            sum(rank + 1 < sum(below) < count - rank - 1 for below in itertools.product((0, 1), repeat=count))
            / 2**count,
        ]
        assert cover[0] >= 0.95 > cover[1], count


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"group": "h"}, "interleaved group"),
        ({"provenance": "emulated"}, "provenance"),
        ({"device": dataclasses.replace(REPORT.device, name="phone")}, "device"),
        ({"machine": dataclasses.replace(REPORT.machine, cpu_model="other")}, "machine"),
        ({"conditions": dataclasses.replace(REPORT.conditions, threads=2)}, "threads"),
        ({"conditions": dataclasses.replace(REPORT.conditions, batch=8)}, "batch"),
    ],
)
def test_unlike_is_not_compared_with_unlike(change, word):
    rounds = [[1.0]] * 6
    with pytest.raises(BadInput, match=f"different {word}"):
        ratio(with_rounds(rounds, **change), with_rounds(rounds))


def test_too_few_rounds_give_no_interval():
    with pytest.raises(BadInput, match="at least 6"):
        ratio(with_rounds([[1.0]] * 5), with_rounds([[1.0]] * 5))


@pytest.mark.parametrize(
    ("low", "high", "margin", "said"),
    [
        (1.06, 1.2, 0.05, "slower"),
        (1.01, 1.04, 0.0, "slower"),
        (1.01, 1.04, 0.05, "not slower"),
        (0.8, 0.9, 0.0, "faster"),
        (0.8, 0.9, 0.05, "faster"),
        (0.9, 1.1, 0.0, "difference not resolved"),
        (0.9, 1.1, 0.05, "difference not resolved"),
        (0.98, 1.04, 0.05, "not slower"),
    ],
)
def test_a_verdict_is_what_the_interval_shows(low, high, margin, said):
    assert verdict(Ratio(median=(low + high) / 2, low=low, high=high, rounds=12), margin=margin) == said


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=30))
def test_the_medians_interval_holds_it_and_is_one_of_rounds(medians):
    low, high = median_interval(with_rounds([[value] * 3 for value in medians]))
    assert low <= np.median(medians) <= high
    assert {low, high} <= set(medians)
