"""Random nets as anybody's converter might write them, against the reference kernels, bit by bit.

Odd channels, strides, dilations, windows wider than the image, batches, zero points at the ends of their range,
branches that join, several inputs and outputs; the same seeds at every run.
"""

import numpy as np
import pytest

from converters.c.graph import read_graph
from converters.c.kernels_test import NONE, OPS, RELU, RELU6, SAME, VALID, ByHand, Net, made, schema, window
from converters.c.program import build
from converters.c.project import Vectors, write_project
from converters.c.vectors import random_inputs
from runtimes.session import open_session

SEEDS = range(14)
SAMPLES = 6
RELU_N1_TO_1 = 2
MOST_VALUES = 6000


class RandomNet:
    """A net under construction: `open` are the values that a next layer may take, with their shapes and scales."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.net = Net(ByHand(), self.random, {}, {})
        self.open = []
        self.layers = 0

    def pick(self, *choices):
        return choices[self.random.integers(len(choices))]

    def scale(self):
        zero = self.pick(-128, 127, 0, int(self.random.integers(-128, 128)))
        return {"scale": float(self.random.uniform(0.01, 0.12)), "zero": zero}

    def input(self):
        shape = (
            self.pick(1, 1, 1, 2, 3),
            *(int(n) for n in self.random.integers(1, 11, 2)),
            self.pick(1, 2, 3, 5, 8, 17),
        )
        kept = self.scale()
        self.open.append((self.net.x(*shape, **kept), shape, kept))

    def made(self, *shape, kept=None):
        kept = kept or self.scale()
        self.layers += 1
        index = self.net.inner(*shape, **kept)
        self.open.append((index, shape, kept))
        return index

    def take(self, wanted=lambda shape: True):
        fitting = [entry for entry in self.open if wanted(entry[1])]
        return fitting[self.random.integers(len(fitting))] if fitting else None

    def activation(self):
        return self.pick(NONE, NONE, RELU, RELU6, RELU_N1_TO_1)

    def step(self):
        getattr(self, self.pick(*LAYERS))()

    def geometry(self, shape):
        kernel = tuple(int(n) for n in self.random.integers(1, 6, 2))
        stride = self.pick((1, 1), (1, 1), (2, 2), (2, 1), (1, 3), (3, 2))
        dilation = (1, 1) if stride != (1, 1) else self.pick((1, 1), (1, 1), (2, 2), (1, 3))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        padding = SAME if any(r > n for r, n in zip(reach, shape[1:3], strict=True)) else self.pick(SAME, VALID)
        size = [made(n, k, s, padding, d) for n, k, s, d in zip(shape[1:3], kernel, stride, dilation, strict=True)]
        return kernel, size, {"stride": stride, "padding": padding, "dilation": dilation}

    def convolution(self):
        index, shape, kept = self.take()
        kernel, size, options = self.geometry(shape)
        out, bits = self.pick(1, 3, 4, 6, 13), self.pick(8, 8, 4)
        weights, scale = self.net.weights((out, *kernel, shape[3]), bits=bits, per_channel=self.pick(True, True, False))
        bias = self.net.bias(out, scale, kept["scale"])
        made_ = self.made(shape[0], *size, out)
        options = window(schema.Conv2DOptionsT(), activation=self.activation(), **options)
        self.net.op(OPS.CONV_2D, [index, weights, bias], [made_], options, version=3)

    def depthwise(self):
        index, shape, kept = self.take()
        kernel, size, options = self.geometry(shape)
        multiplier, bits = self.pick(1, 1, 2, 3), self.pick(8, 8, 4)
        out = shape[3] * multiplier
        weights, scale = self.net.weights((1, *kernel, out), axis=3, bits=bits)
        bias = self.net.bias(out, scale, kept["scale"])
        made_ = self.made(shape[0], *size, out)
        options = window(schema.DepthwiseConv2DOptionsT(), activation=self.activation(), **options)
        options.depthMultiplier = multiplier
        self.net.op(OPS.DEPTHWISE_CONV_2D, [index, weights, bias], [made_], options, version=6 if bits == 4 else 3)

    def pool(self):
        index, shape, kept = self.take()
        code = self.pick(OPS.MAX_POOL_2D, OPS.AVERAGE_POOL_2D)
        kernel, size, options = self.geometry(shape)
        if options["dilation"] != (1, 1):
            return
        made_ = self.made(shape[0], *size, shape[3], kept=kept)
        options = window(schema.Pool2DOptionsT(), activation=self.activation(), **options)
        options.filterHeight, options.filterWidth = kernel
        self.net.op(code, [index], [made_], options, version=2)

    def arithmetic(self):
        index, shape, _ = self.take()
        other = self.take(lambda s: s == shape) if self.pick(True, False) else None
        if other is None or other[0] == index:
            other = self.take(lambda s: s[1:3] == (1, 1) and s[3] == shape[3] and s[0] in (1, shape[0]))
        if other is None:
            return
        code, options = self.pick(
            (OPS.ADD, schema.AddOptionsT), (OPS.MUL, schema.MulOptionsT), (OPS.SUB, schema.SubOptionsT)
        )
        made_ = self.made(*shape)
        self.net.op(
            code, [index, other[0]], [made_], options(), version=2, fusedActivationFunction=self.pick(NONE, RELU)
        )

    def join(self):
        index, shape, kept = self.take()
        other = self.take(lambda s: s[:3] == shape[:3])
        if other[2] != kept:  # the reference kernel wants one scale for all parts
            same = self.net.inner(*other[1], **kept)
            self.net.op(OPS.QUANTIZE, [other[0]], [same], version=2)
            other = (same, other[1], kept)
        made_ = self.made(*shape[:3], shape[3] + other[1][3], kept=kept)
        self.net.op(OPS.CONCATENATION, [index, other[0]], [made_], schema.ConcatenationOptionsT(), axis=3, version=2)

    def pad(self):
        index, shape, kept = self.take()
        widths = [[0, 0], *self.random.integers(0, 3, (2, 2)).tolist(), [0, 0]]
        size = [n + sum(w) for n, w in zip(shape[1:3], widths[1:3], strict=True)]
        made_ = self.made(shape[0], *size, shape[3], kept=kept)
        self.net.op(OPS.PAD, [index, self.net.ints(widths)], [made_], schema.PadOptionsT(), version=2)

    def requantize(self):
        index, shape, _ = self.take()
        self.net.op(OPS.QUANTIZE, [index], [self.made(*shape)], version=2)

    def average(self):
        index, shape, _ = self.take()
        options = schema.ReducerOptionsT()
        options.keepDims = True
        made_ = self.made(shape[0], 1, 1, shape[3])
        self.net.op(OPS.MEAN, [index, self.net.ints([1, 2])], [made_], options, version=2)

    def dense_end(self):
        index, shape, kept = self.open[-1]
        depth = int(np.prod(shape[1:]))
        flat = self.net.inner(shape[0], depth, **kept)
        self.net.op(
            OPS.RESHAPE,
            [index, self.net.ints([shape[0], depth])],
            [flat],
            schema.ReshapeOptionsT(),
            newShape=[shape[0], depth],
        )
        rows, bits = self.pick(1, 2, 7, 10), self.pick(8, 8, 4)
        weights, scale = self.net.weights((rows, depth), bits=bits, per_channel=self.pick(True, False))
        bias = self.pick(self.net.bias(rows, scale, kept["scale"]), -1)
        ended = self.scale()
        logits = self.net.inner(shape[0], rows, **ended)
        self.net.outputs["logits"] = logits
        self.net.op(
            OPS.FULLY_CONNECTED,
            [flat, weights, bias],
            [logits],
            schema.FullyConnectedOptionsT(),
            version=10 if bits == 4 else 5,
            fusedActivationFunction=self.pick(NONE, RELU),
        )

    def write(self, path):
        for _ in range(int(self.random.integers(1, 4))):
            self.input()
        for _ in range(100):
            if self.layers >= 8:
                break
            before = len(self.open)
            self.step()
            if len(self.open) > before and np.prod(self.open[-1][1]) > MOST_VALUES:
                self.open = self.open[:-1]  # too large to go on from; it stays in the net, read by nobody
        for place, (index, _, _) in enumerate(self.open):
            if index not in self.net.inputs.values() and (place == len(self.open) - 1 or self.pick(True, False)):
                self.net.outputs[f"y{place}"] = index
        self.dense_end()
        self.net.hand.signature("main", dict(self.net.inputs), dict(self.net.outputs))
        return self.net.hand.write(path)


LAYERS = ("convolution", "depthwise", "pool", "arithmetic", "arithmetic", "join", "pad", "requantize", "average")


def written(path, folder):
    """The project of a net in `folder`: its signature, inputs, and what the reference kernels make of them."""
    graph = read_graph(path)
    theirs = open_session(path, kernels="reference", trusted=True)
    inputs = random_inputs(graph, SAMPLES, seed=5)
    for number, end in enumerate((-128, 127)):  # where saturation and overflow would show
        for values in inputs:
            values[number] = end + 128 * (values.dtype == np.uint8)
    answers = [theirs.run(_feeds(theirs.signature, inputs, number)) for number in range(SAMPLES)]
    wanted = {info.name: np.stack([each[info.name] for each in answers]) for info in theirs.signature.outputs}
    vectors = Vectors(inputs=inputs, outputs=tuple(wanted.values()))
    write_project(build(graph), theirs.signature, vectors, folder, name="random")
    return theirs.signature, inputs, wanted


def _feeds(signature, inputs, number):
    return {info.name: inputs[place][number] for place, info in enumerate(signature.inputs)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_net_is_bit_exact(seed, tmp_path):
    path = RandomNet(seed).write(tmp_path / "net.tflite")
    (tmp_path / "c").mkdir()
    signature, inputs, wanted = written(path, tmp_path / "c")
    ours = open_session(tmp_path / "c" / "model.c", trusted=True)
    for number in range(SAMPLES):
        got = ours.run(_feeds(signature, inputs, number))
        assert [name for name in wanted if got[name].tobytes() != wanted[name][number].tobytes()] == []
