"""Training begins at weights that were rounded for what their layers read, not each to the nearest."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("executorch")

import torch

from converters.capture import capture
from converters.compress.qat_graph import make_qat
from converters.compress.qat_start import start_rounded
from converters.contracts import CaptureRequest
from converters.executorch.program import load_graph
from edge_deploy.core.tensor import TensorInfo

SIZE = 32


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """A CNN with batch norms and random weights."""
    source = CaptureRequest(
        source="edge_deploy.zoo.small_cnn:small_cnn",
        inputs=(TensorInfo(name="image", shape=(SIZE, 1, 8, 8), dtype="float32"),),
        batches=(SIZE,),
    )
    return capture(source, tmp_path_factory.mktemp("captured"))


def smooth_images(seed):
    """Neighbouring pixels are alike, as in pictures."""
    coarse = np.random.default_rng(seed).normal(size=(SIZE, 1, 3, 3)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(8, 8), mode="bilinear")


def test_outputs_begin_far_nearer_to_the_float_model_than_rounded_to_the_nearest(captured):
    net = make_qat(load_graph(captured), (captured.inputs[0].name,), bits=4, ranges="learned")
    for part in (*net.layers.values(), *net.ranges.values()):
        part.train(False)
    teacher, fresh = load_graph(captured), smooth_images(9)

    def error():
        for activation in net.ranges.values():
            activation.is_quantizing = False
        with torch.no_grad():
            return float((net.graph(fresh)[0] - teacher(fresh)[0]).square().mean())

    nearest = error()
    start_rounded(net, [smooth_images(seed) for seed in range(8)], 8 * SIZE)
    assert error() < 0.5 * nearest
    for layer in net.layers.values():
        stored = layer.folded()[0] / layer.scale_now().detach().reshape(-1, *[1] * (layer.unit.dim() - 1))
        assert float((stored - stored.round()).abs().max()) < 1e-3 and float(stored.abs().max()) <= 8.001
