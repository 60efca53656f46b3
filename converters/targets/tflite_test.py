"""The TFLite target as a whole: what it writes, says and refuses; a published network and its published INT8 file."""

import csv
import dataclasses
import tarfile

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated
from ai_edge_litert.interpreter import Interpreter

from converters.contracts import Captured, LowerRequest
from converters.targets.tflite import FORMAT, lower
from converters.tflite import flatbuffer
from converters.tflite.emit import Emitter
from converters.tflite.flatbuffer import read_model, write_model
from edge_deploy.core.errors import BadInput
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def _network(path, batches=(1,), size=6):
    """One convolution and the mean of its images."""
    emitter = Emitter("test")
    fb = flatbuffer.schema()
    for batch in batches:
        graph = emitter.graph(f"batch_{batch}")
        image = graph.tensor("image", (batch, size, size, 3))
        conv = graph.tensor("conv", (batch, size, size, 4))
        constants = [graph.values("kernel", WEIGHT), graph.values("bias", np.ones(4, np.float32))]
        options = {"padding": fb.Padding.SAME, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        graph.op("CONV_2D", [image, *constants], [conv], "Conv2DOptions", **options)
        mean = graph.tensor("mean", (batch, 4))
        graph.op("MEAN", [conv, graph.values("axes", np.array([1, 2], np.int32))], [mean], "ReducerOptions")
        graph.sign(f"batch_{batch}", {"image": image}, {"score": mean})
    emitter.write(path)
    return path


def _captured(folder, batches=(1,), size=6):
    return Captured(
        name="tiny",
        framework="keras",
        kind="cnn",
        folder=folder,
        inputs=(TensorInfo(name="image", shape=(-1, size, size, 3), dtype="float32", layout="NHWC"),),
        outputs=(TensorInfo(name="score", shape=(-1, 4), dtype="float32", labels=("a", "b", "c", "d")),),
        batches=batches,
        float_tflite=_network(folder / "float.tflite", batches, size),
    )


def _calibration(folder, size=6, name="image"):
    path = folder / "calibration.npz"
    np.savez(path, **{name: np.random.default_rng(1).uniform(-1, 1, (50, size, size, 3)).astype(np.float32)})
    return path


def _lower(captured, folder, recipe, calibration=None, **changes):
    spec = spec_for_recipe(recipe, **changes)
    return lower(LowerRequest(captured=captured, spec=spec, folder=folder, calibration=calibration))


def test_float32_is_the_float_file_with_inline_buffers(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    captured = _captured(tmp_path)
    lowered = _lower(captured, out, "float32")
    assert FORMAT == "tflite" and [entry.path for entry in lowered.files] == ["model.tflite"]
    assert [outcome.got for outcome in lowered.outcomes] == ["float32"]
    image = np.random.default_rng(2).normal(size=(1, 6, 6, 3)).astype(np.float32)
    answers = [
        Interpreter(str(path)).get_signature_runner()(image=image)["score"]
        for path in (captured.float_tflite, out / "model.tflite")
    ]
    np.testing.assert_array_equal(*answers)
    data = (out / "model.tflite").read_bytes()
    root = schema_py_generated.Model.GetRootAs(data, 0)
    assert all(root.Buffers(index).Offset() == 0 for index in range(root.BuffersLength()))


def test_signatures_graph_and_outcomes_describe_the_file(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    lowered = _lower(_captured(tmp_path, (1, 8)), out, "int8", _calibration(tmp_path))
    assert [signature.name for signature in lowered.signatures] == ["batch_1", "batch_8"]
    for signature, batch in zip(lowered.signatures, (1, 8), strict=True):
        assert signature.inputs[0].shape == (batch, 6, 6, 3) and signature.inputs[0].layout == "NHWC"
        assert signature.outputs[0].name == "score" and signature.outputs[0].labels == ("a", "b", "c", "d")
    (outcome,) = lowered.outcomes
    assert (outcome.layer, outcome.asked, outcome.weight_bits, outcome.weight_bytes) == ("conv", "int8", 8, WEIGHT.size)
    assert lowered.graph.macs == 6 * 6 * WEIGHT.size
    assert lowered.toolchain["ai-edge-litert"]


def test_batches_give_the_same_answers(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    _lower(_captured(tmp_path, (1, 8)), out, "int4", _calibration(tmp_path))
    interpreter = Interpreter(str(out / "model.tflite"))
    images = np.random.default_rng(3).uniform(-1, 1, (8, 6, 6, 3)).astype(np.float32)
    one = interpreter.get_signature_runner("batch_1")
    singly = np.concatenate([one(image=image[None])["score"] for image in images])
    together = interpreter.get_signature_runner("batch_8")(image=images)["score"]
    np.testing.assert_allclose(singly, together, atol=np.ptp(singly) / 100)


def test_int8_activations_without_calibration_are_refused(tmp_path):
    with pytest.raises(BadInput, match="--calibrate"):
        _lower(_captured(tmp_path), tmp_path, "int8")


def test_calibration_under_another_name_is_refused(tmp_path):
    with pytest.raises(BadInput, match="image"):
        _lower(_captured(tmp_path), tmp_path, "int8", _calibration(tmp_path, name="picture"))


def test_a_calibration_file_that_is_no_npz_is_refused(tmp_path):
    (tmp_path / "calibration.npz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match="npz"):
        _lower(_captured(tmp_path), tmp_path, "int8", tmp_path / "calibration.npz")


@pytest.mark.parametrize("damage", [b"", b"\x00" * 3, b"\x18\x00\x00\x00TFL3", b"PK\x03\x04 a zip archive"])
def test_a_damaged_float_file_is_refused(tmp_path, damage):
    captured = _captured(tmp_path)
    (tmp_path / "damaged.tflite").write_bytes(damage)
    broken = dataclasses.replace(captured, float_tflite=tmp_path / "damaged.tflite")
    with pytest.raises(BadInput, match=r"damaged\.tflite"):
        _lower(broken, tmp_path, "int8", _calibration(tmp_path))


def test_constants_behind_the_flatbuffer_are_read_by_the_runtime(tmp_path, monkeypatch):
    path = _network(tmp_path / "float.tflite", size=40)
    model = read_model(path)
    model.buffers.append(type(model.buffers[0])())
    big = np.random.default_rng(4).normal(size=(64, 3, 3, 3)).astype(np.float32)
    graph = model.subgraphs[0]
    kernel, bias = (graph.tensors[i] for i in graph.operators[0].inputs[1:])
    flatbuffer.set_constant(model, kernel, big, "float32")
    flatbuffer.set_constant(model, bias, np.zeros(64, np.float32), "float32")
    kernel.shape, bias.shape = [64, 3, 3, 3], [64]
    graph.tensors[graph.operators[0].outputs[0]].shape = [1, 40, 40, 64]
    graph.tensors[graph.operators[1].outputs[0]].shape = [1, 64]
    write_model(model, tmp_path / "inline.tflite")
    monkeypatch.setattr(flatbuffer, "INLINE_LIMIT", 1)
    size = write_model(model, tmp_path / "offset.tflite")
    data = (tmp_path / "offset.tflite").read_bytes()
    assert size == len(data)
    root = schema_py_generated.Model.GetRootAs(data, 0)
    assert any(root.Buffers(index).Offset() > 0 for index in range(root.BuffersLength()))
    image = np.random.default_rng(5).normal(size=(1, 40, 40, 3)).astype(np.float32)
    answers = [
        Interpreter(str(tmp_path / name)).get_signature_runner()(image=image)["score"]
        for name in ("inline.tflite", "offset.tflite")
    ]
    np.testing.assert_array_equal(*answers)


@pytest.fixture(scope="module")
def resnet8(data, tmp_path_factory):
    """The published ResNet-8 with its calibration and evaluation images (0 to 255)."""
    image_module = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("resnet8")
    sheet = data / "eval/cifar10_png_train4k/cifar10_batch_0.png"
    train = np.asarray(image_module.open(sheet).convert("RGB")).reshape(1000, 32, 32, 3)[:200]
    np.savez(folder / "calibration.npz", input_1=train.astype(np.float32))
    with (data / "eval/mlperf_tiny_ic01/y_labels.csv").open() as file:
        names = [row[0] for row in csv.reader(file)]
    with tarfile.open(data / "eval/mlperf_tiny_ic01/ic01.tar.gz") as archive:
        members = {member.name.rsplit("/", 1)[-1]: member for member in archive.getmembers()}
        raw = [archive.extractfile(members[name]).read() for name in names]
    images = np.stack([np.frombuffer(item, np.uint8).reshape(1, 32, 32, 3) for item in raw]).astype(np.float32)
    models = data / "models/mlperf_tiny_ic_resnet8"
    captured = Captured(
        name="resnet8",
        framework="keras",
        kind="cnn",
        folder=folder,
        inputs=(TensorInfo(name="input_1", shape=(1, 32, 32, 3), dtype="float32", layout="NHWC"),),
        outputs=(TensorInfo(name="Identity", shape=(1, 10), dtype="float32", meaning="probability"),),
        float_tflite=models / "pretrainedResnet.tflite",
    )
    return captured, images, models / "pretrainedResnet_quant.tflite"


def _classes(path, images):
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        if given["dtype"] == np.int8:
            scale, zero_point = given["quantization"]
            image = np.clip(np.rint(image / scale) + zero_point, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        found.append(int(interpreter.get_tensor(made["index"])[0].argmax()))
    return np.array(found)


@pytest.mark.needs_data
def test_resnet8_agrees_with_float_at_least_as_often_as_the_published_int8_file(resnet8, tmp_path):
    captured, images, published = resnet8
    _lower(captured, tmp_path, "int8", captured.folder / "calibration.npz")
    reference = _classes(captured.float_tflite, images)
    ours = np.mean(_classes(tmp_path / "model.tflite", images) == reference)
    theirs = np.mean(_classes(published, images) == reference)
    assert ours >= max(theirs, 0.95)


@pytest.mark.needs_data
def test_resnet8_keeps_most_answers_with_int4_weights(resnet8, tmp_path):
    captured, images, _ = resnet8
    lowered = _lower(captured, tmp_path, "int4", captured.folder / "calibration.npz")
    reference = _classes(captured.float_tflite, images)
    assert np.mean(_classes(tmp_path / "model.tflite", images) == reference) > 0.75
    assert {outcome.weight_bits for outcome in lowered.outcomes} == {4.0}
    assert lowered.files[0].bytes < 0.65 * captured.float_tflite.stat().st_size / 2
