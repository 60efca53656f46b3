import numpy as np
import pytest


def _prepared(module, width):
    """A prepared graph that has seen one batch, and that batch."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    from converters.executorch.program import export, name_layers
    from converters.executorch.quantize import _quantizer
    from edge_deploy.core.tensor import TensorInfo

    batch = (torch.rand(8, 6, 7, 7) + 0.5,)
    graph = export(module, (TensorInfo(name="x", shape=(8, 6, 7, 7), dtype="float32"),), (8,)).module(
        check_guards=False
    )
    name_layers(graph)
    prepared = prepare_pt2e(graph, _quantizer(width, {}))
    prepared(*batch)
    return prepared, batch


def _noise(prepared, batch, correct):
    """Mean squared error of each layer's output channels that its rounded weights cause on float inputs."""
    from converters.executorch.bias_correction import _weight_errors
    from converters.executorch.layer_inputs import apply, visit_inputs

    errors, found = _weight_errors(prepared, {}), {}

    def see(node, x):
        values = apply(node, x, errors[node])
        found[node.name] = (values - values.mean(0) if correct else values).square().mean(0).numpy()

    visit_inputs(prepared, errors, [batch], see)
    return found


@pytest.mark.parametrize("layer", ["plain", "grouped", "depthwise", "transposed"])
def test_no_channel_loses_by_the_search_and_some_gain_much(layer):
    import torch
    from torch import nn

    from converters.executorch.quantize import INT4_STORED
    from converters.executorch.searched_scales import search_scales, searched_scale_observer
    from converters.quantize.uniform import symmetric_scales

    torch.manual_seed(0)
    module = {
        "plain": nn.Conv2d(6, 8, 3, padding=1),
        "grouped": nn.Conv2d(6, 8, 3, groups=2, stride=2),
        "depthwise": nn.Conv2d(6, 12, 3, padding=1, groups=6),
        "transposed": nn.ConvTranspose2d(6, 8, 2, 2),
    }[layer].eval()
    with torch.no_grad():
        module.weight.normal_()
    prepared, batch = _prepared(nn.Sequential(module, nn.ReLU()), INT4_STORED)
    observers = [part for part in prepared.modules() if isinstance(part, searched_scale_observer())]
    for part in observers:
        part.scales = torch.from_numpy(symmetric_scales(part.seen.numpy(), axis=part.ch_axis, bits=4))
    before = _noise(prepared, batch, correct=True)
    assert search_scales(prepared, [batch]) == 1
    after = _noise(prepared, batch, correct=True)
    assert before.keys() == after.keys()
    for name in after:
        assert (after[name] <= before[name] * 1.001).all()
        assert after[name].min() < 0.999 * before[name].max()
        assert after[name].sum() < 0.95 * before[name].sum()


def test_extremes_that_carry_the_signal_are_not_clipped():
    import torch
    from torch import nn

    from converters.executorch.quantize import INT4_STORED
    from converters.executorch.searched_scales import search_scales, searched_scale_observer

    module = nn.Conv2d(6, 4, 1).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        module.weight.normal_()
        module.weight[:, 0] = 4.0

    class Loud(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = module
            self.register_buffer("volume", torch.tensor([30.0, 1, 1, 1, 1, 1]).reshape(1, 6, 1, 1))

        def forward(self, x):
            return self.layer(x * self.volume)

    prepared, batch = _prepared(Loud().eval(), INT4_STORED)
    (observer,) = {part for part in prepared.modules() if isinstance(part, searched_scale_observer())}
    search_scales(prepared, [batch])
    assert np.abs((observer.scales * 7).numpy() - 4.0).max() < 1e-5


def test_weights_that_four_bits_represent_change_neither_scales_nor_biases():
    import torch
    from torch import nn

    from converters.executorch.bias_correction import correct_biases
    from converters.executorch.program import attribute
    from converters.executorch.quantize import INT4_STORED
    from converters.executorch.searched_scales import search_scales, searched_scale_observer

    torch.manual_seed(2)
    module = nn.Conv2d(6, 4, 3).eval()
    with torch.no_grad():
        module.weight.copy_(torch.randint(-8, 8, module.weight.shape) / 16.0)
        module.weight[:, 0, 0, 0], module.weight[:, 0, 0, 1] = -8 / 16, 7 / 16
    prepared, batch = _prepared(nn.Sequential(module), INT4_STORED)
    (observer,) = {part for part in prepared.modules() if isinstance(part, searched_scale_observer())}
    search_scales(prepared, [batch])
    assert (observer.scales == 1 / 16).all()
    assert correct_biases(prepared, [batch]) == 1
    conv = next(node for node in prepared.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    torch.testing.assert_close(attribute(prepared, str(conv.args[2].target)), module.bias, rtol=0, atol=0)


def test_eight_bit_weights_keep_their_extremes():
    from torch import nn

    from converters.executorch.searched_scales import search_scales

    prepared, batch = _prepared(nn.Sequential(nn.Conv2d(6, 4, 3)).eval(), "int8")
    assert search_scales(prepared, [batch]) == 0
