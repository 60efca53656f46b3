"""Layers that share constants are quantized each for itself."""

from __future__ import annotations

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo
from runtimes.formats.pte import read_facts


@pytest.mark.parametrize(("recipe", "least"), [("int8", 30), ("int4", 12)])
def test_a_layer_applied_twice_is_quantized_twice(convert, snr, recipe, least):
    conversion = convert("twice", recipe)
    got = {outcome.layer: outcome.got for outcome in conversion.lowered.outcomes}
    assert set(got) == {"stem", "step", "step#2", "mix", "mix#2", "head"}
    assert not {"float32"} & set(got.values())
    assert snr(conversion.net.reference, conversion.outputs()) > least


def test_the_bytes_of_the_copy_are_told(convert):
    conversion = convert("twice", "int8")
    for layer, owner in (("step#2", "step"), ("mix#2", "mix")):
        assert conversion.outcome(layer).reason == f"has the weights of {owner}: stored once"
        assert not conversion.outcome(owner).reason
    once = conversion.outcome("step").weight_bytes
    facts = {fact.layer: fact.weight_bytes for fact in read_facts(conversion.folder / "model.pte")}
    assert facts["step#2"] == once == 8 * 8 * 9
    narrow = convert("twice", "int4")
    assert "has the weights of step" in narrow.outcome("step#2").reason


def test_each_use_has_ranges_of_its_own(convert):
    from converters.executorch.program import load_program

    graph = load_program(convert("twice", "int8").folder / "quantized.pt2").graph
    convolutions = [node for node in graph.nodes if str(node.target) == "aten.conv2d.default"]
    scales = [node.args[0].args[1] for node in convolutions[1:]]
    assert len(scales) == 2 and max(scales) > 2 * min(scales)


def test_equal_constants_of_a_tflite_file_do_not_leave_layers_in_float(tmp_path):
    """Biases of zeros are one buffer in the file, read by a separable convolution behind a product and its sources."""
    import torch
    from torch import nn

    from converters.targets.executorch import lower

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.zeros = nn.Parameter(torch.zeros(8))
            shapes = {"left": (8, 3, 3, 3), "right": (8, 3, 1, 1), "depthwise": (8, 1, 3, 3), "pointwise": (8, 8, 1, 1)}
            for name, shape in shapes.items():
                self.register_parameter(name, nn.Parameter(torch.randn(shape) * 0.3))

        def forward(self, x):
            left = torch.relu(nn.functional.conv2d(x, self.left, self.zeros, padding=1))
            x = left * nn.functional.conv2d(x, self.right, self.zeros)
            x = nn.functional.conv2d(x, self.depthwise, self.zeros, padding=1, groups=8)
            return nn.functional.conv2d(x, self.pointwise, self.zeros)

    torch.manual_seed(0)
    example = torch.zeros(1, 3, 8, 8)
    torch.export.save(torch.export.export(Net().eval(), (example,)), tmp_path / "program.pt2")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((8, 3, 8, 8)).astype(np.float32))
    captured = Captured(
        name="net",
        framework="torch",
        kind="cnn",
        folder=tmp_path,
        inputs=(TensorInfo(name="x", shape=(1, 3, 8, 8), dtype="float32"),),
        outputs=(TensorInfo(name="y", shape=(1, 8, 8, 8), dtype="float32"),),
        program=tmp_path / "program.pt2",
    )
    folder = tmp_path / "out"
    folder.mkdir()
    spec = spec_for_recipe("int8")
    lowered = lower(LowerRequest(captured=captured, spec=spec, folder=folder, calibration=tmp_path / "data.npz"))
    assert [outcome.got for outcome in lowered.outcomes] == ["int8"] * 4
