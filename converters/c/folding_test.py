"""Sizes that a file computes are constants once they are fixed; everything else stays."""

import numpy as np
import pytest

from converters.c.graph import read_graph
from converters.c.kernels_test import OPS, TYPES, ByHand, Net, schema
from converters.c.program import build
from converters.c.project import Vectors, write_project
from converters.c.vectors import random_inputs
from runtimes.session import open_session


@pytest.fixture
def reshaped(tmp_path):
    """What Keras's Reshape becomes for an open batch: its first size is read from the input."""
    net = Net(ByHand(), np.random.default_rng(0), {}, {})
    x = net.x(2, 3, 4)
    shape, first, wanted = (net.inner(*size, kind=TYPES.INT32) for size in ((3,), (), (2,)))
    net.op(OPS.SHAPE, [x], [shape], schema.ShapeOptionsT(), outType=TYPES.INT32)
    ends = [shape, net.ints([0]), net.ints([1]), net.ints([1])]
    net.op(OPS.STRIDED_SLICE, ends, [first], schema.StridedSliceOptionsT(), shrinkAxisMask=1)
    net.op(OPS.PACK, [first, net.ints(12)], [wanted], schema.PackOptionsT(), valuesCount=2, axis=0)
    flat = net.inner(2, 12)
    net.op(OPS.RESHAPE, [x, wanted], [flat], schema.ReshapeOptionsT())
    net.op(OPS.QUANTIZE, [flat], [net.y("y", 2, 12)], version=2)
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    return net.hand.write(tmp_path / "net.tflite")


def test_a_computed_shape_is_a_constant(reshaped, tmp_path):
    program = build(read_graph(reshaped))
    assert [step.node.op for step in program.steps] == ["RESHAPE", "QUANTIZE"]
    (tmp_path / "c").mkdir()
    theirs = open_session(reshaped, kernels="reference", trusted=True)
    (inputs,) = random_inputs(read_graph(reshaped), 3, seed=1)
    (info,) = theirs.signature.inputs
    wanted = [theirs.run({info.name: values})["y"] for values in inputs]
    vectors = Vectors(inputs=(inputs,), outputs=(np.stack(wanted),))
    write_project(program, theirs.signature, vectors, tmp_path / "c", name="net")
    ours = open_session(tmp_path / "c" / "model.c", trusted=True)
    for values, want in zip(inputs, wanted, strict=True):
        np.testing.assert_array_equal(ours.run({info.name: values})["y"], want)


def test_values_that_depend_on_an_input_stay(tmp_path):
    net = Net(ByHand(), np.random.default_rng(0), {}, {})
    pair = [net.x(1, 3, kind=TYPES.INT32), net.ints([[5, 5, 5]])]
    net.op(OPS.MINIMUM, pair, [net.y("y", 1, 3, kind=TYPES.INT32)], schema.MaximumMinimumOptionsT())
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    program = build(read_graph(net.hand.write(tmp_path / "net.tflite")))
    assert [step.node.op for step in program.steps] == ["MINIMUM"]
