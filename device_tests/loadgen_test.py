import dataclasses
import json
import re

import numpy as np
import pytest

from device_tests.loadgen import LoadGenReport, loadgen
from device_tests.loadgen_run import Batcher, read_detail, run_loadgen
from device_tests.loadgen_settings import LENGTHS, SCENARIOS, LoadGenSettings, RunLength
from device_tests.loadgen_stopping import most_discarded
from edge_deploy.core.artifact import Signature
from edge_deploy.core.clock import SystemClock
from edge_deploy.core.errors import BadInput, ToolchainError
from edge_deploy.core.serde import read_json, to_json
from edge_deploy.core.tensor import TensorInfo

# Long enough for early stopping, and no longer.
SHORT = RunLength(queries=64, offline_samples=300, least_s=0.05, most_s=20.0)


class Doubling:
    """Answers twice its input; a batch of `batch`."""

    kernels = "fake"

    def __init__(self, batch=1, fail_from=None):
        info = TensorInfo(name="x", shape=(batch, 2), dtype="float32")
        self.signature = Signature(name="main", inputs=(info,), outputs=(dataclasses.replace(info, name="y"),))
        self.calls, self.fail_from = 0, fail_from

    def run(self, inputs):
        self.calls += 1
        if self.fail_from is not None and self.calls >= self.fail_from:
            raise ValueError("kernel died")
        assert inputs["x"].shape == self.signature.inputs[0].shape
        return {"y": inputs["x"] * 2}


def sets(count, batch=1):
    return [{"x": np.full((batch, 2), number, np.float32)} for number in range(count)]


def drive(session, tmp_path, scenario, *, count=50, batch=1, **changes):
    pytest.importorskip("mlperf_loadgen")
    settings = LoadGenSettings(scenario=scenario, length=SHORT, **changes)
    return run_loadgen(session, sets(count, batch), SystemClock(), settings=to_json(settings), logs=str(tmp_path))


def test_the_lengths_are_those_that_were_agreed():
    assert [(each.queries, each.least_s) for each in LENGTHS.values()] == [(1024, 60.0), (128, 10.0), (64, 6.0)]
    assert LENGTHS["normal"].offline_samples == 24_576


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_loadgen_drives_each_scenario_and_leaves_its_logs(scenario, tmp_path):
    server = {"qps": 2000.0, "latency_limit_s": 1.0} if scenario == "server" else {}
    told = drive(Doubling(), tmp_path, scenario, **server)
    assert told["samples"] == 50
    assert told["results"]["effective_scenario"].replace("-", "") == scenario.title().replace("-", "")
    assert told["results"]["errors"] == []
    assert "Results Summary" in (tmp_path / "mlperf_log_summary.txt").read_text()
    if scenario == "offline":
        assert told["results"]["result_samples_per_second"] > 0
    else:
        assert told["results"]["result_query_count"] >= 64


def test_accuracy_mode_asks_every_sample_once_and_logs_its_answer(tmp_path):
    drive(Doubling(), tmp_path, "single-stream", mode="accuracy")
    entries = json.loads((tmp_path / "mlperf_log_accuracy.json").read_text())
    found = {entry["qsl_idx"]: np.frombuffer(bytes.fromhex(entry["data"]), np.float32) for entry in entries}
    assert sorted(found) == list(range(50))
    assert all((found[index] == 2 * index).all() for index in found)


def test_our_early_stopping_is_loadgens(tmp_path):
    told = drive(Doubling(), tmp_path, "single-stream")
    report = judged(told, "single-stream")
    queries = report.results["result_query_count"]
    (discarded,) = re.findall(r"Would discard (\d+) highest", report.results["early_stopping_result"])
    # LoadGen discards the slowest t - 1 and states the next.
    assert int(discarded) == most_discarded(queries, 0.9) - 1
    label, stated_s = report.headline()
    assert label.startswith("p90")
    assert stated_s > 0
    assert report.own_estimate_s() > 0


def judged(told, scenario):
    from device_tests.compare_test import CONDITIONS, HOST, MACHINE

    return LoadGenReport(
        artifact="net",
        format="tflite",
        recipe="int8",
        sha256="0",
        model_bytes=1,
        device=HOST,
        machine=MACHINE,
        conditions=CONDITIONS,
        provenance="measured",
        settings=LoadGenSettings(scenario=scenario),
        results=told["results"],
        samples=told["samples"],
        alone_s=told["alone_s"],
        latencies_s=tuple(told["latencies_s"]),
    )


def test_a_model_that_dies_amid_a_run_is_an_error_and_no_result(tmp_path):
    with pytest.raises(ToolchainError, match="kernel died"):
        drive(Doubling(fail_from=20), tmp_path, "single-stream", count=5)
    with pytest.raises(ValueError, match="kernel died"):
        drive(Doubling(fail_from=1), tmp_path, "offline")


def test_batches_are_filled_with_samples_and_answers_come_back_in_order():
    batcher = Batcher(Doubling(batch=4), sets(2, batch=4))
    assert (batcher.batch, batcher.count) == (4, 8)
    answers = batcher.answer([7, 0, 3, 4, 5])
    assert [float(each[0]) for each in answers] == [2.0, 0.0, 0.0, 2.0, 2.0]


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    with pytest.raises(BadInput, match="both must be positive"):
        LoadGenSettings(scenario="server")
    with pytest.raises(BadInput, match="single-stream, multi-stream"):
        LoadGenSettings(scenario="burst")
    with pytest.raises(BadInput, match="no sample"):
        drive(Doubling(), tmp_path, "offline", count=0)


def test_an_interrupted_log_is_no_result(tmp_path):
    (tmp_path / "detail").write_text(':::MLLOG {"key": "loadgen_version", "value": "1", "metadata": {}}\n:::MLLOG {"ke')
    with pytest.raises(ToolchainError, match="holds no result"):
        read_detail(tmp_path / "detail")
    with pytest.raises(ToolchainError, match="wrote no absent"):
        read_detail(tmp_path / "absent")


def test_a_model_is_driven_on_the_device_and_its_report_stands_beside_the_logs(data, tmp_path):
    pytest.importorskip("mlperf_loadgen")
    pytest.importorskip("ai_edge_litert")
    model = data / "models" / "mlperf_tiny_kws_dscnn" / "kws_ref_model.tflite"
    report = loadgen(model, LoadGenSettings(scenario="single-stream", length=SHORT), out=tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json", "loadgen.json"} == names
    assert read_json(LoadGenReport, tmp_path / "out" / "loadgen.json") == report
    assert report.results["result_query_count"] >= 64
    assert report.conditions.inputs == "random, seed 0"
