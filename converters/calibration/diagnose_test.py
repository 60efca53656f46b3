"""The doctor on real depthwise nets of PyTorch and Keras, calibrated rightly and wrongly."""

import textwrap
from dataclasses import replace

import numpy as np
import pytest

from converters.calibration.diagnose import diagnose, observe, observe_in_this_process
from converters.calibration.samples_test import _smooth
from converters.capture import capture
from converters.contracts import CaptureRequest
from edge_deploy.core.serde import to_json
from edge_deploy.core.tensor import TensorInfo

SIZE, COUNT = 16, 40
FACTORY = """
    import torch
    from torch import nn

    def block(i, o):
        return nn.Sequential(
            nn.Conv2d(i, i, 3, padding=1, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU6(),
            nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU6())

    def net():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
                              block(8, 16), block(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
        images = torch.from_numpy(__import__("numpy").load(IMAGES))
        with torch.no_grad():
            for _ in range(60):
                model.train()(images)
        return model
"""


@pytest.fixture(scope="module")
def torch_net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    np.save(folder / "images.npy", _smooth(64, SIZE, 3, seed=1).transpose(0, 3, 1, 2).copy())
    code = textwrap.dedent(FACTORY).replace("IMAGES", repr(str(folder / "images.npy")))
    (folder / "calibration_doctor_net.py").write_text(code)
    request = CaptureRequest(
        source="calibration_doctor_net:net",
        inputs=(TensorInfo(name="image", shape=(1, 3, SIZE, SIZE), dtype="float32", layout="NCHW"),),
        search_path=(str(folder),),
    )
    return capture(request, folder / "captured")


@pytest.fixture(scope="module")
def keras_net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.Conv2D(16, 1, use_bias=False),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    for _ in range(40):
        model(_smooth(64, SIZE, 3, seed=1), training=True)
    model.save(folder / "net.keras")
    return capture(CaptureRequest(source=str(folder / "net.keras")), folder / "captured")


def _findings(captured, images, folder):
    (info,) = captured.inputs
    np.savez(folder / "feeds.npz", **{info.name: images})
    seen = observe_in_this_process(to_json(captured), str(folder / "feeds.npz"))
    return diagnose({info.name: images}, captured.inputs, seen)


def _images(captured, seed=2):
    images = _smooth(COUNT, SIZE, 3, seed=seed)
    return images.transpose(0, 3, 1, 2).copy() if captured.inputs[0].layout == "NCHW" else images


@pytest.fixture(params=["torch_net", "keras_net"])
def net(request):
    return request.getfixturevalue(request.param)


def test_samples_like_those_of_training_raise_no_alarm(net, tmp_path):
    findings = _findings(net, _images(net), tmp_path)
    assert [finding for finding in findings if finding.severity == "serious" or finding.kind == "scale"] == []


def test_pixels_of_0_to_255_in_a_depthwise_net_of_0_to_1_are_caught(net, tmp_path):
    findings = _findings(net, _images(net) * 255, tmp_path)
    assert findings[0].severity == "serious" and findings[0].kind == "scale"
    assert "divide by 255" in findings[0].remedy
    assert ("saturation" in {finding.kind for finding in findings}) == (net.framework == "torch")  # it has ReLU6


def test_pixels_divided_twice_are_caught(net, tmp_path):
    first = _findings(net, _images(net) / 255, tmp_path)
    scale = [finding for finding in first if finding.kind == "scale"]
    assert scale[0].severity == "serious" and "0-255" in scale[0].remedy


def test_without_batch_norms_the_biases_tell_the_scale(keras_net, tmp_path):
    folded = replace(keras_net, source="tflite", state=None)  # the float file, as another converter may have left it
    images = _images(folded)
    told = {}
    for name, samples in (("right", images), ("large", images * 255), ("small", images / 255)):
        told[name] = [finding.text for finding in _findings(folded, samples, tmp_path) if finding.kind == "scale"]
    assert told["right"] == []
    assert "far too large" in told["large"][0] and "hardly counts" in told["small"][0]


def test_shifted_pixels_are_noticed(torch_net, tmp_path):
    findings = _findings(torch_net, _images(torch_net) * 2 - 1, tmp_path)
    assert "scale" in {finding.kind for finding in findings}


def test_every_layer_is_described_once_with_every_sample(net, tmp_path):
    images = _images(net)
    np.savez(tmp_path / "feeds.npz", **{net.inputs[0].name: images})
    found = observe(net, tmp_path / "feeds.npz")
    assert found.samples == COUNT
    assert {len(layer.lows) for layer in found.layers} == {COUNT}
    names = [layer.layer for layer in found.layers]
    assert len(set(names)) == len(names) >= 5
    assert any(layer.active for layer in found.layers)
