"""The tool's output formats, and a stand-in for the binary, which no package holds: it prints what the tool prints."""

import pytest

from device_tests.benchmark_model import benchmark_by_binary, parse_printed
from edge_deploy.core.errors import BadInput, DeviceError, ToolchainError, Unsupported

CLASSIC = """STARTING!
Loaded model ./m.tflite
Initialized session in 17.187ms.
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
count=1 curr=3512391

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
count=50 first=2990275 curr=2913402 min=2727568 max=3189954 avg=2.95034e+06 std=109798

Inference timings in us: Init: 17187, First inference: 3512391, Warmup (avg): 3.51239e+06, Inference (avg): 2.95034e+06
Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE.
Memory footprint delta from the start of the tool (MB): init=4.21094 overall=46.0859
"""
QUANTILES = """INFO: count=12 first=41000 curr=35000 min=34000 max=41000 avg=35500 std=900
INFO: count=25 first=187 curr=140 min=139 max=195 avg=145.5 std=13.5 p5=140 median=141 p95=187
INFO: Inference timings in us: Init: 92318, First inference: 187533, Warmup (avg): 35500, Inference (avg): 145.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.5
"""
BLOCK = """INFO: [benchmark_litert_model.cc:1]
INFO: [benchmark_litert_model.h:210] ========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:211] Model initialization: 3.50 ms
INFO: [benchmark_litert_model.h:212] Warmup (first):       2.10 ms
INFO: [benchmark_litert_model.h:213] Warmup (avg):         1.90 ms (5 runs)
INFO: [benchmark_litert_model.h:214] Inference (avg):      1.25 ms (50 runs)
INFO: [benchmark_litert_model.h:215] Inference (min):      1.10 ms
INFO: [benchmark_litert_model.h:216] Inference (max):      1.80 ms
INFO: [benchmark_litert_model.h:217] Inference (std):      0.05 ms
"""
TABLE = """
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t AllocateTensors\t    1.000\t    1.356\t    1.356\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0
============================== Run Order ==============================
\t [node type]\t [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t          CONV_2D\t   0.000\t    4.269\t    4.250\t  0.107%\t  0.107%\t     0.000\t        1\t[a/Relu6]:0
\t DEPTHWISE_CONV_2D\t   4.270\t    2.150\t    2.100\t  0.054%\t  0.161%\t     0.000\t        1\t[b/Relu6]:1

============================== Top by Computation Time ==============================
\t          CONV_2D\t   0.000\t    4.269\t    4.250\t  0.107%\t  0.107%\t     0.000\t        1\t[a/Relu6]:0
"""


def test_the_classic_lines():
    found = parse_printed(CLASSIC)
    assert (found.runs, found.mean_s, found.least_s, found.most_s) == pytest.approx((50, 2.95034, 2.727568, 3.189954))
    assert found.init_s == pytest.approx(0.017187)
    assert found.warm_up_s == pytest.approx(3.51239)
    assert found.peak_bytes == int(46.0859 * 2**20)


def test_quantiles_and_monitored_memory_of_newer_ones():
    found = parse_printed(QUANTILES)
    assert found.runs == 25
    assert found.quantiles_s == pytest.approx({"p5": 140e-6, "median": 141e-6, "p95": 187e-6})
    assert found.peak_bytes == int(12.5 * 2**20)


def test_the_block_of_the_newer_tool():
    found = parse_printed(BLOCK)
    assert (found.runs, found.mean_s, found.init_s) == (50, pytest.approx(1.25e-3), pytest.approx(3.5e-3))
    assert (found.least_s, found.most_s, found.std_s) == pytest.approx((1.1e-3, 1.8e-3, 0.05e-3))


def test_the_table_of_nodes_in_run_order():
    assert parse_printed(CLASSIC + TABLE).layer_s == pytest.approx({"a/Relu6": 4.25e-3, "b/Relu6": 2.1e-3})
    assert parse_printed(CLASSIC).layer_s == {}


def test_output_without_a_result_is_told_with_its_last_words():
    with pytest.raises(ToolchainError, match=r"(?s)no result.*failed to load the model"):
        parse_printed("STARTING!\nERROR: failed to load the model\n")


@pytest.fixture
def model(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"\x08\0\0\0TFL3")
    return tmp_path / "m.tflite"


def tool(folder, body):
    path = folder / "benchmark_model"
    path.write_text("#!/bin/sh\n" + body)
    return path


def test_a_binary_is_pushed_run_and_reported(tmp_path, model):
    asked = tmp_path / "asked"
    binary = tool(tmp_path, f'echo "$@" >> {asked}\ncat <<"END"\n{CLASSIC}{TABLE}\nEND\n')
    report = benchmark_by_binary(
        model, binary=binary, threads=2, rounds=3, runs=7, layers=True, arguments=("--use_xnnpack=false",)
    )
    assert report.rounds_s == ((pytest.approx(2.95034),),) * 3
    assert report.conditions.calls_per_value == 50
    assert report.conditions.kernels == "benchmark_model (the user's build) --use_xnnpack=false"
    assert report.layer_source == "profiler"
    first, *_, last = asked.read_text().splitlines()
    assert "--num_threads=2 --num_runs=7" in first
    assert "--enable_op_profiling=true" not in first
    assert "--enable_op_profiling=true" in last
    assert binary.stat().st_mode & 0o111 == 0


def test_a_binary_that_fails_or_is_none_is_told(tmp_path, model):
    with pytest.raises(DeviceError, match=r"(?s)exit code 3 on the device.*out of memory"):
        benchmark_by_binary(model, binary=tool(tmp_path, "echo out of memory >&2\nexit 3\n"))
    (tmp_path / "benchmark_model").write_bytes(b"\x7fELF not for this processor")
    with pytest.raises(DeviceError, match="is it built for this processor"):
        benchmark_by_binary(model, binary=tmp_path / "benchmark_model")
    with pytest.raises(BadInput, match="no such file; give a benchmark_model"):
        benchmark_by_binary(model, binary=tmp_path / "absent")
    (tmp_path / "m.pte").write_bytes(b"x" * 64)
    with pytest.raises(Unsupported, match=r"runs \.tflite files only"):
        benchmark_by_binary(tmp_path / "m.pte", binary=tmp_path / "benchmark_model")
