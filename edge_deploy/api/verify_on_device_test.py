"""The same comparison whatever answers: the Python worker of this machine, or a native runner on an emulated core."""

import hashlib
import shutil

import numpy as np
import pytest

from converters import verify as compare_with
from device_tests.device_list import connect, find_device
from edge_deploy.api.verify_on_device import compare_on_device
from edge_deploy.core.artifact import MANIFEST, Artifact, FileEntry
from edge_deploy.core.errors import MissingExtra, ToolchainError
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import write_json
from runtimes.formats.facts import read_signatures
from runtimes.runners.bundle import runner_bundle


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """An artifact of a published INT8 file, 9 samples, and its answers on this machine."""
    folder = tmp_path_factory.mktemp("artifact")
    model = data / "models/mlperf_tiny_ic_resnet8/pretrainedResnet_quant.tflite"
    shutil.copyfile(model, folder / "model.tflite")
    content = model.read_bytes()
    signatures = read_signatures(folder / "model.tflite")
    entry = FileEntry(path="model.tflite", role="model", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    artifact = Artifact(
        name="resnet8",
        format="tflite",
        spec=QuantSpec(recipe="int8"),
        source="published",
        kind="cnn",
        files=(entry,),
        source_inputs=signatures[0].inputs,
        source_outputs=signatures[0].outputs,
        signatures=signatures,
        graph=LayerGraph(inputs=(), outputs=(), layers=()),
        outcomes=(),
        toolchain={},
    )
    write_json(artifact, folder / MANIFEST)
    feeds, answers = folder / "feeds.npz", folder / "answers.npz"
    pixels = np.random.default_rng(5).integers(0, 256, (9, 32, 32, 3)).astype(np.float32)
    # In the terms of the source, which here are the file's own: real values of a scale of 1.
    np.savez(feeds, **{signatures[0].inputs[0].name: pixels})
    compare_with.answer(folder, signature=signatures[0], feeds=feeds, answers=answers)
    return folder, artifact, feeds, answers


@pytest.mark.parametrize("device", ["host", "qemu:arm64-cortex-a76"])
def test_a_device_that_computes_the_same_is_identical_at_one_and_two_threads(made, device):
    folder, artifact, feeds, answers = made
    if device != "host":
        try:
            connect(find_device(device)).close()
            runner_bundle("litert", "aarch64")
        except (MissingExtra, ToolchainError) as missing:
            pytest.skip(str(missing))
    runs = compare_with.all_runs(artifact)
    found = compare_on_device(folder, artifact, device=device, runs=runs, feeds=feeds, answers=answers)
    assert [each.threads for each in found] == [1, 2]
    assert [each.samples for each in found] == [9, 9]
    assert all(each.snr_db >= 999 for each in found), found
    assert ("emulated cortex-a76" in found[0].kernels) == (device != "host")
    with np.load(answers) as archive:
        assert len(np.unique(archive[archive.files[0]])) > 10
