"""Scratch memory never makes an arena larger than the values of a net need; what takes its place is as exact."""

import numpy as np
import pytest

from converters.c.from_tflite import lower_integer_file
from converters.c.graph import read_graph
from converters.c.kernels_test import OPS, ByHand, Net, schema, window
from converters.c.program import build
from converters.c.vectors import random_inputs
from runtimes.session import open_session


def auto_encoder(net, bits):
    last, depth = net.x(1, 640), 640
    for rows in (128, 128, 8, 128, 640):
        weights, scale = net.weights((rows, depth), bits=bits)
        made = net.inner(1, rows)
        given = [last, weights, net.bias(rows, scale)]
        net.op(OPS.FULLY_CONNECTED, given, [made], schema.FullyConnectedOptionsT(), 10 if bits == 4 else 5)
        last, depth = made, rows
    net.outputs["answer"] = last


def deep_convolutions(net, bits):
    last, depth = net.x(1, 7, 7, 24), 24
    for rows in (24, 24):
        weights, scale = net.weights((rows, 3, 3, depth), bits=bits)
        made = net.inner(1, 7, 7, rows)
        net.op(OPS.CONV_2D, [last, weights, net.bias(rows, scale)], [made], window(schema.Conv2DOptionsT()), 3)
        last = made
    weights, scale = net.weights((1, 3, 3, 48), axis=3, bits=8)
    options = window(schema.DepthwiseConv2DOptionsT())
    options.depthMultiplier = 2
    net.outputs["answer"] = net.inner(1, 7, 7, 48)
    given = [last, weights, net.bias(48, scale)]
    net.op(OPS.DEPTHWISE_CONV_2D, given, [net.outputs["answer"]], options, 3)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("write", "most"), [(auto_encoder, 640 + 128), (deep_convolutions, 7 * 7 * (24 + 48))])
def test_the_arena_holds_what_the_largest_layer_takes_and_gives(tmp_path, write, most, bits):
    net = Net(ByHand(), np.random.default_rng(5), {}, {})
    write(net, bits)
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    path = net.hand.write(tmp_path / "net.tflite")
    assert build(read_graph(path)).arena_bytes <= most
    (tmp_path / "c").mkdir()
    lower_integer_file(path, tmp_path / "c", name="net")
    ours, theirs = open_session(tmp_path / "c/model.c", trusted=True), open_session(path, kernels="reference")
    (values,) = random_inputs(read_graph(path), 12, seed=5)
    for x in values:
        (got,), (want,) = (each.run({each.signature.inputs[0].name: x}).values() for each in (ours, theirs))
        assert len(np.unique(want)) > 3
        np.testing.assert_array_equal(got, want)
