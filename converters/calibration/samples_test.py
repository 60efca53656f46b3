"""Findings that need no model: inputs, copies, layout; and coverage from counts."""

import numpy as np
import pytest

from converters.calibration.coverage import unreached_channels
from converters.calibration.inputs import copied_samples, unvaried_inputs
from converters.calibration.layout import misplaced_channels
from converters.calibration.statistics import LayerStatistics
from edge_deploy.core.tensor import TensorInfo


def _smooth(count, size, channels, seed=0):
    """Colour images [count, size, size, channels] in 0..1 of slow waves."""
    random = np.random.default_rng(seed)
    axis = np.linspace(0, 2 * np.pi, size)
    phases, speeds = random.uniform(0, 6, (2, count, channels)), random.uniform(0.3, 1.2, (2, count, channels))
    down = np.sin(axis[None, :, None] * speeds[0][:, None] + phases[0][:, None])[:, :, None]
    across = np.sin(axis[None, :, None] * speeds[1][:, None] + phases[1][:, None])[:, None]
    return ((down + across) / 4 + 0.5).astype(np.float32)


def _info(shape, layout):
    return TensorInfo(name="image", shape=(1, *shape), dtype="float32", layout=layout)


def _kinds(findings):
    return {finding.kind: finding for finding in findings}


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_reshaped_images_are_told_from_transposed_ones(layout):
    images = _smooth(12, 16, 3)
    first = images.transpose(0, 3, 1, 2)
    right, wrong = (first, images.reshape(first.shape)) if layout == "NCHW" else (images, first.reshape(images.shape))
    info = _info(right.shape[1:], layout)
    assert list(misplaced_channels(right, info)) == []
    (finding,) = misplaced_channels(np.ascontiguousarray(wrong), info)
    assert finding.severity == "serious" and "transpose" in finding.remedy.lower()


def test_noise_and_grey_images_have_no_layout_to_be_wrong():
    noise = np.random.default_rng(0).normal(size=(12, 3, 16, 16))
    assert list(misplaced_channels(noise, _info((3, 16, 16), "NCHW"))) == []
    grey = _smooth(12, 16, 1).transpose(0, 3, 1, 2)
    assert list(misplaced_channels(grey, _info((1, 16, 16), "NCHW"))) == []


def test_constant_inputs_columns_and_blank_images_are_found():
    same = np.ones((5, 4), np.float32)
    assert _kinds(unvaried_inputs({"x": same}))["constant-input"].severity == "serious"
    table = np.random.default_rng(0).normal(size=(5, 4))
    table[:, 2] = 7.0
    assert "never change: 2." in _kinds(unvaried_inputs({"x": table}))["constant-column"].text
    images = _smooth(10, 8, 3)
    assert list(unvaried_inputs({"x": images})) == []
    images[:3] = 0.0
    assert _kinds(unvaried_inputs({"x": images}))["blank-samples"].severity == "warning"
    hardly = 100.0 + np.random.default_rng(0).normal(size=(9, 4)) * 1e-4
    assert "near-constant-input" in _kinds(unvaried_inputs({"x": hardly}))


def test_copies_are_counted_over_all_inputs_together():
    images = _smooth(6, 8, 3)
    other = np.arange(6, dtype=np.float32)[:, None]
    assert list(copied_samples({"a": images})) == []
    twice = np.concatenate([images, images[:2]])
    (finding,) = copied_samples({"a": twice})
    assert finding.text.startswith("2 of 8") and finding.severity == "warning"
    assert list(copied_samples({"a": np.repeat(images[:1], 6, axis=0), "b": other})) == []
    (finding,) = copied_samples({"a": np.repeat(images[:1], 6, axis=0)})
    assert finding.severity == "serious"


def _layer(active):
    return LayerStatistics(layer="relu", lows=(0.0,), highs=(1.0,), active=tuple(active))


def test_dead_channels_are_told_from_channels_that_the_samples_have_not_reached_yet():
    assert list(unreached_channels((_layer([20, 20, 3]),), 20)) == []
    (finding,) = unreached_channels((_layer([20, 0, 1, 1, 0, 1]),), 20)
    assert finding.severity == "warning" and "one in 7 further samples" in finding.remedy
    (finding,) = unreached_channels((_layer([20, 0, 0, 9]),), 20)
    assert finding.severity == "note" and "dead in the model" in finding.remedy
    (finding,) = unreached_channels((_layer([0, 0]),), 20)
    assert finding.severity == "serious"
