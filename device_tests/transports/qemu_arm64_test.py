"""ARM kernels under emulation against this machine's. Outputs only: an emulator's times mean nothing."""

import copy
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from device_tests.benchmark import benchmark
from device_tests.device_list import connect, find_device
from device_tests.device_session import open_on_device
from device_tests.input_sets import random_input_sets
from edge_deploy.core.errors import BadInput, DeviceError, MissingExtra, ToolchainError
from runtimes.runners.bundle import runner_bundle
from runtimes.session import open_session

YARDSTICK = "models/yardstick_cnn_int8/cnn_int8.tflite"
RESNET = "models/mlperf_tiny_ic_resnet8/pretrainedResnet_quant.tflite"
WORD = re.compile(r"0x[0-9a-f]+:\s+([0-9a-f]{8})\b")
LOAD = {"do": "load", "backend": None, "signature": None, "threads": 1, "seed": 0, "inputs": None, "source": []}


@pytest.fixture(scope="module")
def tools():
    """Emulator, cross compiler and the runtime's libraries for ARM; tests without them are skipped."""
    try:
        connect(find_device("qemu:arm64-cortex-a53")).close()
        runner_bundle("litert", "aarch64")
    except (MissingExtra, ToolchainError) as missing:  # the latter where its wheel cannot be fetched
        pytest.skip(str(missing))


def outputs(model, core, *, kernels="default", count=12, first="input"):
    """The same inputs here and on the emulated core: [samples, ...] both."""
    here = open_session(model, trusted=True, kernels=kernels)
    sets = random_input_sets(here.signature, seed=11)[:count]
    with open_on_device(model, device=f"qemu:arm64-{core}", kernels=kernels) as there:
        answers = there.run_many(sets)
        assert there.kernels.endswith(f"native runner, emulated {core} (qemu)")
    name = here.signature.outputs[0].name
    return np.stack([here.run(each)[name] for each in sets]), np.stack([each[name] for each in answers])


@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_int8_by_xnnpack_is_bit_for_bit_that_of_this_machine(tools, data, core):
    here, there = outputs(data / RESNET, core)
    assert len(np.unique(here)) > 20
    np.testing.assert_array_equal(there, here)


def layers_apart(source, target):
    """A file of the same layers with an input and an output each, so that no difference adds up."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes(), 0))
    (graph,) = model.subgraphs
    graph.inputs, graph.outputs, model.signatureDefs = [], [], []
    for operator in graph.operators:
        given = []
        for index in operator.inputs:
            tensor = graph.tensors[index] if index >= 0 else None
            is_value = tensor is not None and model.buffers[tensor.buffer].data is None
            if is_value:
                graph.tensors.append(copy.copy(tensor))
                graph.tensors[-1].name = f"x{len(graph.tensors)}".encode()
                index = len(graph.tensors) - 1
                graph.inputs.append(index)
            given.append(index)
        operator.inputs = given
        graph.outputs += list(operator.outputs)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def test_layers_by_builtin_kernels_differ_by_one_step_at_most(tools, data, tmp_path):
    # The kernels for ARM round a layer's sums once, those for x86 twice; in a deep net such steps add up.
    model = layers_apart(data / RESNET, tmp_path / "layers.tflite")
    here = open_session(model, trusted=True, kernels="builtin")
    sets = random_input_sets(here.signature, seed=11)[:4]
    with open_on_device(model, device="qemu:arm64-cortex-a53", kernels="builtin") as there:
        answers = there.run_many(sets)
    differing = 0
    for given, answer in zip(sets, answers, strict=True):
        for name, values in here.run(given).items():
            steps = np.abs(values.astype(int) - answer[name])
            assert steps.max() <= 1, name
            differing += np.count_nonzero(steps)
    assert 0 < differing < 0.01 * sum(value.size for each in answers for value in each.values())


def test_a_report_says_that_builtin_kernels_round_otherwise_on_arm(tools, data):
    asked = {"device": "qemu:arm64-cortex-a53", "runs": 6, "rounds": 6, "min_seconds": 0}
    (report,) = benchmark([data / YARDSTICK], kernels="builtin", **asked)
    assert any("round once on ARM and twice on x86" in note for note in report.notes)


def _is_sdot(word):
    """Signed dot product of bytes, by vector or by element (Arm ARM, C7.2: SDOT); not every disassembler knows it."""
    return word & 0xFFE0FC00 == 0x4E809400 or word & 0xFFC0F400 == 0x4F80E000


def test_a_benchmark_there_is_labelled_emulated(tools, data):
    (report,) = benchmark([data / YARDSTICK], device="qemu:arm64-cortex-a76", runs=6, rounds=6, min_seconds=0)
    assert report.provenance == "emulated"
    assert report.machine.isa == "aarch64"
    assert report.machine.cpu_model == "cortex-a76, emulated by qemu"
    assert "asimddp" in report.machine.features
    assert any("times and memory are the emulator's" in note for note in report.notes)


@pytest.mark.parametrize("core", ["max", "max,sme=on"])
def test_the_core_that_computes_wrongly_is_refused(core):
    with pytest.raises(BadInput, match=r"computes INT8 kernels wrongly.* take qemu:arm64-cortex-a76"):
        find_device(f"qemu:arm64-{core}")


def test_an_unknown_core_is_refused_with_a_suggestion():
    with pytest.raises(BadInput, match=r"did you mean qemu:arm64-cortex-a76\?"):
        find_device("qemu:arm64-cortex-a77")


def test_a_missing_emulator_is_told_with_its_package(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtra, match="apt-get install --no-install-recommends qemu-user"):
        connect(find_device("qemu:arm64-cortex-a53"))


def test_a_missing_compiler_is_told_with_its_package(monkeypatch, tmp_path):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("PATH", "/nowhere")
    foreign = {"x86_64": "aarch64", "aarch64": "x86_64"}[os.uname().machine]
    monkeypatch.setattr("runtimes.runners.libraries._fetched", lambda wheel, version, isa: tmp_path)
    with pytest.raises(MissingExtra, match=rf"native runner for {foreign}: needs a C\+\+ compiler for it; apt-get"):
        runner_bundle("litert", foreign)


def test_an_emulator_that_hangs_is_given_up_and_leaves_nothing(tools, data, tmp_path, monkeypatch):
    fake = tmp_path / "qemu-aarch64"
    fake.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    transport = connect(find_device("qemu:arm64-cortex-a53"))
    worker = transport.run("")
    path = transport.push(data / YARDSTICK, "0/model.tflite")
    with pytest.raises(DeviceError, match=r"native runner \(ai-edge-litert .*emulated .*\): gave no answer within 1 s"):
        worker.ask({**LOAD, "path": path, "kernels": "default"}, timeout_s=1)
    worker.close()
    transport.close()
    assert not Path(transport.folder).exists()
    number = (tmp_path / "pid").read_text().strip()
    assert subprocess.run(["kill", "-0", number], capture_output=True).returncode != 0
