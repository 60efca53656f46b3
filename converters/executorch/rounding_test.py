import copy

import pytest

SAMPLES = 24


def _prepared(module, shape, width):
    """A prepared graph that has seen one batch of smooth images, and that batch."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    from converters.executorch.program import export, name_layers
    from converters.executorch.quantize import _quantizer
    from edge_deploy.core.tensor import TensorInfo

    values = torch.randn(SAMPLES, *shape, generator=torch.Generator().manual_seed(3)).cumsum(-1)
    batch = (values / values.std(),)
    info = (TensorInfo(name="x", shape=(SAMPLES, *shape), dtype="float32"),)
    graph = export(module, info, (SAMPLES,)).module(check_guards=False)
    name_layers(graph)
    prepared = prepare_pt2e(graph, _quantizer(width, {}))
    prepared(*batch)
    return prepared, batch


def _layers():
    from torch import nn

    return {
        "plain": (nn.Conv2d(4, 8, 3, padding=1), (4, 9, 9)),
        "strided": (nn.Conv2d(4, 8, 3, stride=2, padding=(1, 0), dilation=(1, 2)), (4, 11, 9)),
        "same": (nn.Conv2d(4, 8, (2, 3), padding="same"), (4, 8, 9)),
        "grouped": (nn.Conv2d(6, 8, 3, groups=2), (6, 8, 8)),
        "depthwise": (nn.Conv2d(6, 12, 3, padding=1, groups=6), (6, 9, 9)),
        "line": (nn.Conv1d(5, 8, 5, padding=2), (5, 30)),
        "linear": (nn.Linear(20, 8), (7, 20)),
    }


@pytest.mark.parametrize("layer", ["plain", "strided", "same", "grouped", "depthwise", "line", "linear"])
@pytest.mark.parametrize("width", ["int8", "int4 stored"])
def test_outputs_are_nearer_to_the_float_layer_than_by_rounding_to_the_nearest(layer, width):
    import torch

    from converters.executorch.bias_correction import correct_biases
    from converters.executorch.rounding import round_weights

    torch.manual_seed(0)
    module, shape = _layers()[layer]
    prepared, batch = _prepared(torch.nn.Sequential(module).eval(), shape, width)
    with torch.no_grad():
        want = module(*batch)

    nearest, moved = prepared, copy.deepcopy(prepared)
    correct_biases(nearest, [batch])
    had = round_weights(moved, [batch], SAMPLES)
    assert len(had) == 1
    correct_biases(moved, [batch], had)
    assert _noise(moved, batch, want) < 0.9 * _noise(nearest, batch, want)


def _noise(prepared, batch, want):
    """Mean squared error of the outputs; activations stay float, so that the weights alone are judged."""
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    converted = convert_pt2e(prepared)
    for node in list(converted.graph.nodes):
        if "quantized_decomposed.quantize_per_tensor" in str(node.target):
            for reader in list(node.users):
                reader.replace_all_uses_with(node.args[0])
    converted.recompile()
    with torch.no_grad():
        return float((converted(*batch) - want).square().mean())


def test_weights_that_four_bits_represent_stay_as_they_are():
    import torch

    from converters.executorch.program import attribute
    from converters.executorch.rounding import round_weights

    torch.manual_seed(2)
    module = torch.nn.Conv2d(6, 4, 3).eval()
    with torch.no_grad():
        module.weight.copy_(torch.randint(-8, 8, module.weight.shape) / 16.0)
        module.weight[:, 0, 0, 0], module.weight[:, 0, 0, 1] = -8 / 16, 7 / 16
    prepared, batch = _prepared(torch.nn.Sequential(module), (6, 8, 8), "int4 stored")
    ((node, weight),) = round_weights(prepared, [batch], SAMPLES).items()
    assert torch.equal(weight, module.weight)
    assert torch.equal(attribute(prepared, str(node.args[1].args[0].target)), module.weight)


def test_the_manifest_tells_the_bounds_that_count():
    from converters.executorch import bias_correction, rounding
    from converters.targets.executorch import PASS_SAMPLES
    from edge_deploy.core.passes import BIASES, ROUNDING

    assert PASS_SAMPLES == {ROUNDING: rounding.MOST_SAMPLES, BIASES: bias_correction.MOST_SAMPLES}
