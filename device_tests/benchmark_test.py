import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from device_tests.benchmark import Subject, Turn, _doubts, benchmark, measure_in_turns, read_subject
from device_tests.device_list import device_names, find_device
from device_tests.protocol_gates import Gate
from device_tests.worker import Worker
from edge_deploy.core.artifact import Artifact, FileEntry, Signature
from edge_deploy.core.benchmark import BenchmarkReport, percentiles, ratio
from edge_deploy.core.clock import ManualClock
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import BadInput, DeviceError
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import dumps, loads, write_json
from edge_deploy.core.tensor import TensorInfo
from runtimes.probes.machine import read_machine

X = TensorInfo(name="x", shape=(4, 3), dtype="float32")
Y = TensorInfo(name="y", shape=(4, 2), dtype="float32")
MAIN = Signature(name="main", inputs=(X,), outputs=(Y,))


class FakeSession:
    """Each run takes what the machine's slowness of the moment makes of `seconds`."""

    signature = MAIN
    kernels = "fake 1.0"

    def __init__(self, clock, seconds, journal, name):
        self.clock, self.seconds, self.journal, self.name = clock, seconds, journal, name

    def run(self, inputs):
        assert inputs["x"].shape == (4, 3)
        self.journal.append(self.name)
        self.clock.advance(self.seconds * (1.0 if self.clock.now_s() < 2.0 else 3.0))
        return {"y": np.zeros((4, 2), np.float32)}

    def layer_seconds(self, inputs, *, runs):
        return {"dense": self.seconds} if self.name == "a" else None

    def close(self):
        pass


class DirectChannel:
    """The worker in this process; every message still goes through JSON, as it does over a pipe."""

    def __init__(self, worker):
        self.worker = worker

    def ask(self, request, *, timeout_s):
        return json.loads(json.dumps(self.worker.answer(json.loads(json.dumps(request)))))

    def close(self):
        pass


@pytest.fixture(scope="module")
def measured():
    """Two fakes that share one clock and one machine that becomes three times slower on the way."""
    clock, journal = ManualClock(), []
    turns = []
    for name, seconds in (("a", 0.02), ("b", 0.01)):
        worker = Worker(lambda path, n=name, s=seconds, **_: FakeSession(clock, s, journal, n), clock)
        subject = Subject(
            path=Path(name), name=name, format="tflite", recipe="int8", sha256="0", model_bytes=1, files=()
        )
        turns.append(Turn(subject=subject, channel=DirectChannel(worker), path="x.tflite"))
    reports = measure_in_turns(
        turns,
        device=find_device("host"),
        threads=2,
        backend=None,
        signature=None,
        kernels="default",
        inputs=None,
        min_seconds=2.0,
        runs=30,
        rounds=8,
        seed=1,
    )
    return reports, journal


def test_reports_hold_the_raw_values_by_round_apart_from_the_warm_up(measured):
    (a, b), _ = measured
    assert [len(a.rounds_s), len(b.rounds_s)] == [8, 8]
    assert percentiles(a).runs * 0.02 >= 1.9
    assert percentiles(a).min_s == pytest.approx(0.02)
    assert percentiles(a).max_s == pytest.approx(0.06)
    assert a.warm_up_s[0] == pytest.approx(0.02)


def test_taking_turns_makes_the_ratio_independent_of_the_slow_phase(measured):
    (a, b), _ = measured
    found = ratio(a, b)
    assert found.median == pytest.approx(2.0)
    assert found.resolved


def test_artifacts_take_turns_instead_of_one_after_the_other(measured):
    _, journal = measured
    changes = sum(one != two for one, two in itertools.pairwise(journal))
    assert changes >= 8


def test_a_busy_machine_and_an_unsteady_warm_up_are_noted():
    machine = read_machine()
    assert _doubts(machine, (), steady=True) == _doubts(machine, (0.0, 0.0, 0.0), steady=True) == ()
    busy, unsteady = _doubts(machine, (machine.cores + 1.0, 0.0, 0.0), steady=False)[::-1]
    assert "busy" in busy
    assert "steady" in unsteady


def test_conditions_say_how_it_was_run(measured):
    (a, b), _ = measured
    assert a.conditions.kernels == "fake 1.0"
    assert (a.conditions.threads, a.conditions.batch, a.conditions.signature) == (2, 4, "main")
    assert a.conditions.inputs == "random, seed 1"
    assert (a.layer_source, a.layer_s) == ("profiler", {"dense": 0.02})
    assert (b.layer_source, b.layer_s) == ("none", {})
    assert a.group == b.group
    assert a.provenance == "measured"
    assert a.machine.cores >= 1
    assert loads(BenchmarkReport, dumps(a), where="a") == a


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """An artifact folder with a file that the null runtime never opens."""
    folder = tmp_path_factory.mktemp("artifact") / "tflite-int8"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"model" * 20)
    entry = FileEntry(path="model.bin", role="model", bytes=100, sha256=file_sha256(folder / "model.bin"))
    artifact = Artifact(
        name="net",
        format="tflite",
        spec=spec_for_recipe("int8"),
        source="net.h5",
        kind="generic",
        files=(entry,),
        source_inputs=(X,),
        source_outputs=(Y,),
        signatures=(MAIN,),
        graph=LayerGraph(inputs=(X,), outputs=(), layers=()),
        outcomes=(),
        toolchain={},
    )
    write_json(artifact, folder / "manifest.json")
    return folder


def test_a_folder_is_known_by_its_manifest_and_a_file_by_itself(folder, tmp_path):
    shutil.copy(folder / "model.bin", tmp_path / "bare.tflite")
    ours, bare = read_subject(folder), read_subject(tmp_path / "bare.tflite")
    assert (ours.name, ours.recipe, ours.is_folder) == ("net", "int8", True)
    assert (bare.name, bare.recipe, bare.is_folder) == ("bare.tflite", "", False)
    assert ours.sha256 == bare.sha256
    assert ours.model_bytes == bare.model_bytes == 100


def test_paths_that_are_no_models_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="no such file"):
        read_subject(tmp_path / "absent")
    with pytest.raises(BadInput, match=r"\.txt suffix: must be one of \.tflite"):
        read_subject(tmp_path / "notes.txt")


def test_all_wrong_options_are_named_before_anything_starts(folder):
    with pytest.raises(BadInput) as caught:
        benchmark([], threads=0, rounds=0, min_seconds=-1)
    assert len(caught.value.problems) == 4
    with pytest.raises(BadInput, match="did you mean host"):
        benchmark([folder], device="hots")


def test_the_host_is_described_by_what_it_is():
    assert "host" in device_names()
    host = find_device("host")
    assert (host.kind, host.transport) == ("host", "local")
    assert host.ram_bytes > 1 << 20


def test_what_a_device_cannot_hold_is_refused_before_it_is_sent(folder, tmp_path):
    (tmp_path / "tiny.toml").write_text(
        'kind = "emulated"\nisa = "armv7e-m"\ncores = 1\nram = "32 KiB"\nflash = "64 b"\n'
    )
    with pytest.raises(BadInput, match="100 B, tiny has 64 B of flash"):
        benchmark([folder], device=str(tmp_path / "tiny.toml"))


def test_emulated_devices_are_labelled_and_never_compared_with_measured_ones(folder, tmp_path):
    text = 'kind = "emulated"\nisa = "x86_64"\ncores = 1\nram = "1 GB"\ntransport = "local"\n'
    (tmp_path / "slow.toml").write_text(text)
    (emulated,) = benchmark([folder], device=str(tmp_path / "slow.toml"), backend="null", min_seconds=0, rounds=6)
    (measured,) = benchmark([folder], backend="null", min_seconds=0, rounds=6)
    assert emulated.provenance == "emulated"
    with pytest.raises(BadInput, match="different provenance"):
        ratio(emulated, measured)


def test_a_damaged_file_is_refused_when_it_arrives(folder, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    (copy / "model.bin").write_bytes(bytes(100))
    with pytest.raises(DeviceError, match="arrived: must be"):
        benchmark([copy])


def test_data_files_beside_a_program_go_along(tmp_path):
    for name in ("net.pte", "net.ptd", "net_table.ptd", "other.ptd"):
        (tmp_path / name).write_bytes(b"x" * 10)
    subject = read_subject(tmp_path / "net.pte")
    assert [name for _, name, _ in subject.files] == ["net.pte", "net.ptd", "net_table.ptd"]
    assert subject.model_bytes == 30


def test_errors_of_the_worker_name_the_file_that_was_given(folder):
    with pytest.raises(BadInput) as caught:
        benchmark([folder], backend="null", signature="absent")
    assert str(folder) in str(caught.value)
    assert "edge-deploy-device" not in str(caught.value)


def test_a_whole_benchmark_runs_over_pipes(folder):
    (report,) = benchmark([folder], backend="null", min_seconds=0, runs=12, rounds=3)
    assert percentiles(report).runs >= 12
    assert report.conditions.kernels == "null"
    assert report.conditions.batch == 4
    assert report.peak_rss_bytes > 0
    assert len(report.states) == 3
    if hasattr(os, "sched_setaffinity"):
        assert len(report.conditions.cpus) == 1
    if report.memory_peak is not None:
        most = report.peak_rss_bytes + (4 << 20)  # the system counts pages in batches
        assert max(report.memory_peak.anonymous_bytes, report.memory_peak.mapped_bytes) <= most
        assert report.memory_peak.anonymous_bytes >= report.memory_base.anonymous_bytes > 0


def test_a_worker_without_a_wish_is_bound_to_nothing_and_a_gate_that_is_off_does_not_look(folder):
    (report,) = benchmark([folder], backend="null", min_seconds=0, rounds=1, cpus="none", gate=Gate(policy="off"))
    assert report.conditions.cpus == ()
    assert report.states == ()


def test_a_model_of_another_runtime_is_measured_in_a_process_of_its_own(data):
    folder = data / "models" / "mlperf_tiny_ic_resnet8"
    subjects = [folder / "pretrainedResnet_quant.tflite", folder / "pretrainedResnet.tflite"]
    pytest.importorskip("ai_edge_litert")
    reports = benchmark(subjects[:1], against=subjects[1:], min_seconds=0, runs=12, rounds=6)
    assert [report.artifact for report in reports] == [path.name for path in subjects]
    assert all("litert" in report.conditions.kernels for report in reports)
    assert all(report.peak_rss_bytes >= report.base_rss_bytes for report in reports)
    assert ratio(*reports).rounds == 6
