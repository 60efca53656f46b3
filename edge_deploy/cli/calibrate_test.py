"""A conversion of a depthwise net says when its calibration samples are in the wrong units; the command says more."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_deploy.api.convert import convert
from edge_deploy.api.request import convert_request
from edge_deploy.cli.main import app

SIZE = 8


def _waves(count, seed):
    """Smooth images in 0..1, [count, 8, 8, 3]."""
    random = np.random.default_rng(seed)
    axis = np.linspace(0, 3, SIZE)
    down, across = (np.sin(axis[None, :, None] + random.uniform(0, 6, (count, 1, 3))) for _ in range(2))
    return ((down[:, :, None] + across[:, None]) / 4 + 0.5).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3), name="image"),
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.7),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    for _ in range(30):
        net(_waves(64, 0), training=True)
    path = tmp_path_factory.mktemp("keras") / "depthwise.keras"
    net.save(path)
    return path


def test_convert_notes_samples_in_the_wrong_units(model, tmp_path):
    np.savez(tmp_path / "wrong.npz", image=_waves(24, 1) * 255)
    request = convert_request(
        str(model), to=["tflite"], precision=["int8", "float32"], out=tmp_path / "out", calibrate=tmp_path / "wrong.npz"
    )
    quantized, real = convert(request).artifacts
    (note,) = [warning for warning in quantized.warnings if warning.startswith("calibration: ")]
    assert "batch norm" in note and "divide by 255" in note
    assert not any(warning.startswith("calibration: ") for warning in real.warnings)  # it needs no calibration


def test_the_command_finds_nothing_serious_in_good_samples_and_ends_well(model, tmp_path):
    np.savez(tmp_path / "right.npz", image=_waves(24, 1))
    options = ["calibration", str(model), "--calibrate", str(tmp_path / "right.npz"), "--json"]
    found = CliRunner().invoke(app, options)
    assert found.exit_code == 0
    report = json.loads(found.stdout)
    assert (report["samples"], report["norms"]) == (24, 1) and report["layers"] >= 3
    assert not {finding["kind"] for finding in report["findings"]} & {"scale", "layout", "duplicates"}
