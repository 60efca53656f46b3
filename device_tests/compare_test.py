import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_tests.compare import ASPECTS, compare, fail_if_slower, parse_margin, unlike
from edge_deploy.core.benchmark import BenchmarkReport, Machine, RunConditions
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput, VerificationFailed

HOST = Device(name="host", kind="host", isa="x86_64", cores=2, ram_bytes=1 << 30)
MACHINE = Machine(
    cpu_model="cpu", isa="x86_64", features=("avx2",), cores=2, ram_bytes=1 << 30, governor=None, kernel="Linux 6"
)
CONDITIONS = RunConditions(threads=1, kernels="litert 2", batch=1, signature="main", inputs="random, seed 0", cpus=(1,))


def report(rounds, *, group="g", name="net", conditions=CONDITIONS, **changes):
    made = BenchmarkReport(
        artifact=name,
        format="tflite",
        recipe="int8",
        sha256="0",
        model_bytes=1,
        device=HOST,
        machine=MACHINE,
        conditions=conditions,
        provenance="measured",
        group=group,
        load_s=0.1,
        warm_up_s=(),
        rounds_s=tuple(tuple(values) for values in rounds),
        base_rss_bytes=1,
        peak_rss_bytes=2,
    )
    return dataclasses.replace(made, **changes)


STEADY = [[1.0, 1.01, 0.99]] * 8
NOISY = [[value] for value in (1.02, 0.98, 1.01, 0.99, 1.03, 0.97, 1.0, 1.0)]


def test_what_took_turns_is_paired_round_by_round():
    slow_phase = [[1.0]] * 4 + [[3.0]] * 4
    twice = [[2.0]] * 4 + [[6.0]] * 4
    found = compare(report(twice), report(slow_phase))
    assert found.interleaved
    assert (found.ratio.low, found.ratio.high) == (2.0, 2.0)
    assert found.verdict() == "slower"


def test_reports_of_two_benchmarks_are_compared_by_their_rounds_and_say_so():
    found = compare(report(NOISY, group="a"), report(NOISY, group="b"))
    assert not found.interleaved
    assert found.verdict() == "difference not resolved"
    assert "not interleaved" in str(found)
    assert compare(report(STEADY, group="a"), report([[2.0]] * 8, group="b")).verdict() == "faster"


@pytest.mark.parametrize(
    ("aspect", "changes"),
    [
        ("device", {"device": dataclasses.replace(HOST, name="phone")}),
        ("machine", {"machine": dataclasses.replace(MACHINE, cpu_model="other")}),
        ("governor", {"machine": dataclasses.replace(MACHINE, governor="powersave")}),
        ("kernel", {"machine": dataclasses.replace(MACHINE, kernel="Linux 5")}),
        ("cores", {"machine": dataclasses.replace(MACHINE, cores=4)}),
        ("provenance", {"provenance": "emulated"}),
        ("runtime", {"conditions": dataclasses.replace(CONDITIONS, kernels="executorch 1")}),
        ("threads", {"conditions": dataclasses.replace(CONDITIONS, threads=2)}),
        ("cpus", {"conditions": dataclasses.replace(CONDITIONS, cpus=())}),
        ("batch", {"conditions": dataclasses.replace(CONDITIONS, batch=8)}),
        ("inputs", {"conditions": dataclasses.replace(CONDITIONS, inputs_sha256="abc")}),
    ],
)
def test_every_aspect_that_differs_is_refused_by_its_name_and_may_be_allowed(aspect, changes):
    other, base = report(STEADY, group="a", **changes), report(STEADY, group="b")
    assert list(unlike(other, base)) == [aspect]
    with pytest.raises(BadInput, match=f"other {aspect}.*--allow {aspect}"):
        compare(other, base)
    assert compare(other, base, allow=[aspect]).allowed == (aspect,)


def test_no_aspect_is_left_untried():
    assert len(ASPECTS) == 11


def test_a_misspelt_aspect_and_too_few_rounds_are_refused():
    with pytest.raises(BadInput, match="did you mean runtime"):
        compare(report(STEADY), report(STEADY), allow=["runtme"])
    with pytest.raises(BadInput, match="at least 6"):
        compare(report([[1.0]] * 5), report([[1.0]] * 5))


def test_one_benchmark_compares_runtimes_on_purpose():
    other = report(STEADY, conditions=dataclasses.replace(CONDITIONS, kernels="executorch 1"))
    assert compare(other, report(STEADY)).interleaved


def test_only_a_slow_down_that_is_shown_fails():
    base = report(STEADY, name="base")
    slower, same = report([[1.2]] * 8, name="slow"), report(NOISY, name="same")
    with pytest.raises(VerificationFailed, match=r"slow .*1\.2.*more than 5% slower"):
        fail_if_slower([compare(slower, base)], 0.05)
    assert "not 30% slower" in fail_if_slower([compare(slower, base)], 0.3)[0]
    assert "not 5% slower" in fail_if_slower([compare(same, base)], 0.05)[0]
    wide = report([[1.0], [1.2], [0.9], [1.3], [1.0], [1.1]])
    assert "not resolved against 5% slower" in fail_if_slower([compare(wide, report([[1.0]] * 6))], 0.05)[0]


@given(st.floats(0.5, 2.0), st.integers(0, 1000))
def test_the_interval_of_separate_reports_holds_the_ratio_of_their_medians(factor, seed):
    values = np.random.default_rng(seed).lognormal(0, 0.1, (2, 12))
    ours, theirs = report([[x * factor] for x in values[0]], group="a"), report([[x] for x in values[1]], group="b")
    found = compare(ours, theirs).ratio
    assert found.low <= found.median <= found.high


def test_margins_are_shares():
    assert parse_margin("5%") == parse_margin("0.05") == pytest.approx(0.05)
    for wrong in ("five", "-1%", "nan", ""):
        with pytest.raises(BadInput, match="fail-if-slower"):
            parse_margin(wrong)
