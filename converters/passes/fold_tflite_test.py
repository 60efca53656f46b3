"""Scales and shifts by channel disappear in the layers beside them, where that is exact."""

import numpy as np
import pytest

from converters.passes.equalise_tflite_test import Net, images, outputs
from converters.passes.fold_tflite import fold_model
from converters.tflite.flatbuffer import op_name, write_model
from converters.tflite.quantizer import prepare

RNG = np.random.default_rng(3)


def linear(net, kind, x, channels, act="NONE"):
    values = RNG.uniform(0.5, 2.0, size=channels).astype(np.float32)
    options = {"MUL": "MulOptions", "ADD": "AddOptions", "SUB": "SubOptions"}[kind]
    name = f"{kind.lower()}_{len(net.graph.subgraph.tensors)}"
    from converters.tflite.flatbuffer import schema

    code = getattr(schema().ActivationFunctionType, act)
    constant = net.graph.values(f"{name}/values", values)
    made = net.op(kind, [x, constant], net.graph.shape(x), name, options, fusedActivationFunction=code)
    net.sizes[made] = np.ones(channels)
    return made


def norm(net, x, act="NONE"):
    channels = net.graph.shape(x)[-1]
    return linear(net, "ADD", linear(net, "MUL", x, channels), channels, act)


def behind(net):
    x = norm(net, net.layer("first", net.image, 6, "NONE", kernel=3), act="RELU")
    x = norm(net, net.layer("depth", x, 6, "NONE", kernel=3, depthwise=True), act="RELU6")
    return net.layer("last", x, 4, "NONE")


def before(net):
    x = norm(net, net.layer("first", net.image, 6, "RELU", kernel=3))
    x = norm(net, net.layer("point", x, 8, "RELU"))
    x = norm(net, net.layer("valid", x, 6, "RELU", kernel=3, padding="VALID"))
    return net.dense("scores", net.layer("last", x, 4, "RELU"), 3)


@pytest.mark.parametrize(("build", "folded"), [(behind, 4), (before, 6)])
def test_norms_behind_and_before_layers_disappear_exactly(build, folded, tmp_path):
    net = Net()
    file = net.write(tmp_path / "float.tflite", build(net))
    model = prepare(file)
    assert fold_model(model) == folded
    kinds = [op_name(model, operator) for operator in model.subgraphs[0].operators]
    assert not {"MUL", "ADD"} & set(kinds)
    write_model(model, tmp_path / "folded.tflite")
    samples = images(8)
    np.testing.assert_allclose(
        outputs(tmp_path / "folded.tflite", samples), outputs(file, samples), rtol=1e-3, atol=1e-4
    )


def test_a_shift_before_zeros_at_the_border_stays(tmp_path):
    net = Net()
    x = norm(net, net.layer("first", net.image, 6, "RELU", kernel=3))
    file = net.write(tmp_path / "float.tflite", net.layer("last", x, 4, "NONE", kernel=3))
    model = prepare(file)
    assert fold_model(model) == 0
    assert [op_name(model, operator) for operator in model.subgraphs[0].operators] == [
        "CONV_2D",
        "MUL",
        "ADD",
        "CONV_2D",
    ]
