"""Every operator in C against the reference kernels, bit by bit: many in one file, each with its input and output."""

import subprocess
from dataclasses import dataclass

import numpy as np
import pytest

from converters.c.from_tflite import lower_integer_file
from converters.c.graph import read_graph
from converters.c.vectors import random_inputs
from converters.quantize.packing import pack_int4
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, schema
from runtimes.session import open_session

SAME, VALID = 0, 1
NONE, RELU, RELU6 = 0, 1, 3
SAMPLES = 24


@dataclass
class Net:
    """Independent operators in one file; `cases` names the output of each."""

    hand: ByHand
    random: np.random.Generator
    inputs: dict
    outputs: dict

    def x(self, *shape, kind=TYPES.INT8, scale=0.05, zero=3):
        name = f"x{len(self.inputs)}"
        quantized = {} if kind in (TYPES.FLOAT32, TYPES.INT32) else {"scale": scale, "zero_point": zero}
        self.inputs[name] = self.hand.tensor(name, list(shape), kind, **quantized)
        return self.inputs[name]

    def inner(self, *shape, kind=TYPES.INT8, scale=0.05, zero=3):
        quantized = {} if kind in (TYPES.FLOAT32, TYPES.INT32) else {"scale": scale, "zero_point": zero}
        return self.hand.tensor(f"t{len(self.hand.graph.tensors)}", list(shape), kind, **quantized)

    def y(self, case, *shape, kind=TYPES.INT8, scale=0.07, zero=-5):
        self.outputs[case] = self.inner(*shape, kind=kind, scale=scale, zero=zero)
        return self.outputs[case]

    def ints(self, values):
        return self.hand.tensor(
            f"c{len(self.hand.graph.tensors)}", list(np.shape(values)), TYPES.INT32, data=np.int32(values)
        )

    def weights(self, shape, *, axis=0, bits=8, per_channel=True):
        high = 127 if bits == 8 else 7
        values = self.random.integers(-high, high + 1, shape).astype(np.int8)
        count = shape[axis] if per_channel else 1
        scale = self.random.uniform(0.002, 0.02, count) * (1 if bits == 8 else 16)
        kind, data = (TYPES.INT8, values) if bits == 8 else (TYPES.INT4, pack_int4(values).tobytes())
        name = f"w{len(self.hand.graph.tensors)}"
        return self.hand.tensor(name, list(shape), kind, data=data, scale=scale, axis=axis), scale

    def bias(self, count, scale, x_scale=0.05):
        values = self.random.integers(-900, 900, count).astype(np.int32)
        scale = np.broadcast_to(np.float64(scale) * x_scale, (count if np.size(scale) > 1 else 1,))
        return self.hand.tensor(f"b{len(self.hand.graph.tensors)}", [count], TYPES.INT32, data=values, scale=scale)

    def op(self, code, inputs, outputs, options=None, version=1, **fields):
        if options is not None:
            for name, value in fields.items():
                assert hasattr(options, name), name
                setattr(options, name, value)
        self.hand.operator(code, inputs, outputs, options, version)


def window(options, *, stride=(1, 1), padding=SAME, dilation=(1, 1), activation=NONE):
    options.strideH, options.strideW = stride
    options.padding = padding
    if hasattr(options, "dilationHFactor"):
        options.dilationHFactor, options.dilationWFactor = dilation
    options.fusedActivationFunction = activation
    return options


def made(size, kernel, stride, padding, dilation):
    reach = (kernel - 1) * dilation + 1
    return -(-size // stride) if padding == SAME else -(-(size - reach + 1) // stride)


CONVOLUTIONS = {
    # image, kernel (h, w), out channels, the window
    "3x3": ((9, 7, 4), (3, 3), 6, {}),
    "3x3 of odd depth": ((6, 5, 3), (3, 3), 5, {"activation": RELU}),
    "strided": ((9, 8, 8), (3, 3), 7, {"stride": (2, 2), "activation": RELU6}),
    "strided unevenly": ((10, 9, 2), (4, 2), 3, {"stride": (2, 1)}),
    "valid": ((8, 8, 5), (3, 2), 4, {"padding": VALID}),
    "dilated": ((9, 9, 3), (3, 3), 4, {"dilation": (2, 2)}),
    "pointwise": ((5, 5, 20), (1, 1), 9, {"activation": RELU}),
    "pointwise strided": ((7, 7, 6), (1, 1), 4, {"stride": (2, 2)}),
    "wider than the image": ((2, 2, 3), (5, 5), 2, {}),
    "one pixel, deep": ((1, 1, 70), (1, 1), 11, {}),
}


def spread(net):
    for bits in (8, 4):
        for name, ((h, w, c), (kh, kw), out, options) in CONVOLUTIONS.items():
            stride, padding = options.get("stride", (1, 1)), options.get("padding", SAME)
            dilation = options.get("dilation", (1, 1))
            shape = (made(h, kh, stride[0], padding, dilation[0]), made(w, kw, stride[1], padding, dilation[1]))
            weights, scale = net.weights((out, kh, kw, c), bits=bits)
            ends = [net.y(f"convolution {name}, {bits} bits", 1, *shape, out)]
            net.op(
                OPS.CONV_2D,
                [net.x(1, h, w, c), weights, net.bias(out, scale)],
                ends,
                window(schema.Conv2DOptionsT(), **options),
                version=3,
            )
    net.batches = 2
    weights, scale = net.weights((3, 2, 2, 2))
    net.op(
        OPS.CONV_2D,
        [net.x(2, 4, 4, 2), weights, net.bias(3, scale)],
        [net.y("convolution of two images", 2, 4, 4, 3)],
        window(schema.Conv2DOptionsT()),
        version=3,
    )


def channelwise(net):
    cases = {
        "3x3": ((8, 7, 5), (3, 3), 1, {}),
        "3x3 strided": ((9, 9, 4), (3, 3), 1, {"stride": (2, 2), "activation": RELU6}),
        "two outputs a channel": ((6, 6, 3), (3, 3), 2, {}),
        "5x4 valid": ((9, 8, 2), (5, 4), 1, {"padding": VALID}),
        "dilated": ((9, 9, 3), (3, 3), 1, {"dilation": (2, 2)}),
        "one input channel": ((8, 6, 1), (3, 3), 8, {"activation": RELU}),
    }
    for bits in (8, 4):
        for name, ((h, w, c), (kh, kw), multiplier, options) in cases.items():
            stride, padding = options.get("stride", (1, 1)), options.get("padding", SAME)
            dilation = options.get("dilation", (1, 1))
            shape = (made(h, kh, stride[0], padding, dilation[0]), made(w, kw, stride[1], padding, dilation[1]))
            weights, scale = net.weights((1, kh, kw, c * multiplier), axis=3, bits=bits)
            options = window(schema.DepthwiseConv2DOptionsT(), **options)
            options.depthMultiplier = multiplier
            net.op(
                OPS.DEPTHWISE_CONV_2D,
                [net.x(1, h, w, c), weights, net.bias(c * multiplier, scale)],
                [net.y(f"depthwise {name}, {bits} bits", 1, *shape, c * multiplier)],
                options,
                version=3 if bits == 8 else 6,
            )


def dense(net):
    for bits in (8, 4):
        for per_channel in (False, True):
            for rows, depth, batch in ((10, 64, 1), (7, 37, 1), (5, 9, 3), (1, 3, 1), (9, 100, 2)):
                weights, scale = net.weights((rows, depth), bits=bits, per_channel=per_channel)
                kind = "per channel" if per_channel else "per tensor"
                net.op(
                    OPS.FULLY_CONNECTED,
                    [net.x(batch, depth), weights, net.bias(rows, scale)],
                    [net.y(f"dense {batch}x{depth} to {rows}, {kind}, {bits} bits", batch, rows)],
                    schema.FullyConnectedOptionsT(),
                    version=10 if bits == 4 else 5,
                    fusedActivationFunction=RELU,
                )
    for a, b in ((False, True), (False, False)):
        right = (1, 5, 9) if b else (1, 9, 5)
        net.op(
            OPS.BATCH_MATMUL,
            [net.x(1, 4, 9), net.x(1, *right[1:], scale=0.04, zero=-7)],
            [net.y(f"batches multiplied, across {a} {b}", 1, 4, 5, scale=0.2)],
            schema.BatchMatMulOptionsT(),
            adjX=a,
            adjY=b,
        )


def values(net):
    for name, code, options in (
        ("add", OPS.ADD, schema.AddOptionsT),
        ("sub", OPS.SUB, schema.SubOptionsT),
        ("mul", OPS.MUL, schema.MulOptionsT),
    ):
        for form, left, right in (
            ("of equals", (1, 4, 5, 3), (1, 4, 5, 3)),
            ("with a row", (1, 4, 5, 3), (3,)),
            ("of a column", (1, 4, 1, 3), (1, 4, 5, 3)),
        ):
            shape = np.broadcast_shapes(left, right)
            ends = [net.y(f"{name} {form}", *shape, scale=0.06)]
            options_of = options()
            options_of.fusedActivationFunction = RELU if form == "of equals" else NONE
            net.op(code, [net.x(*left), net.x(*right, scale=0.031, zero=-9)], ends, options_of, version=2)
    for name in ("RELU", "RELU6", "RELU_N1_TO_1"):
        net.op(getattr(OPS, name), [net.x(1, 40)], [net.y(name, 1, 40)], version=1 if "N1" in name else 2)
    net.op(OPS.LOGISTIC, [net.x(1, 300)], [net.y("LOGISTIC", 1, 300, scale=1 / 256, zero=-128)], version=2)
    net.op(OPS.TANH, [net.x(1, 300)], [net.y("TANH", 1, 300, scale=1 / 128, zero=0)], version=2)
    net.op(OPS.HARD_SWISH, [net.x(1, 300)], [net.y("HARD_SWISH", 1, 300)], schema.HardSwishOptionsT())
    leaky = schema.LeakyReluOptionsT()
    leaky.alpha = 0.2
    net.op(OPS.LEAKY_RELU, [net.x(1, 300)], [net.y("LEAKY_RELU", 1, 300)], leaky, version=2)
    net.op(OPS.QUANTIZE, [net.x(1, 300)], [net.y("requantize", 1, 300, scale=0.013, zero=44)], version=2)
    byte = net.x(1, 300, kind=TYPES.UINT8, scale=0.02, zero=128)
    net.op(OPS.QUANTIZE, [byte], [net.y("bytes to INT8", 1, 300, scale=0.02, zero=0)], version=2)
    net.op(OPS.QUANTIZE, [net.x(1, 300, kind=TYPES.FLOAT32)], [net.y("floats to INT8", 1, 300, scale=0.013)], version=2)
    net.op(OPS.DEQUANTIZE, [net.x(1, 300)], [net.y("INT8 to floats", 1, 300, kind=TYPES.FLOAT32)], version=2)
    for depth, scale in ((10, 0.1), (3, 0.9), (300, 0.02)):
        softmax = schema.SoftmaxOptionsT()
        softmax.beta = 1.0
        ends = [net.y(f"softmax of {depth}", 2, depth, scale=1 / 256, zero=-128)]
        net.op(OPS.SOFTMAX, [net.x(2, depth, scale=scale)], ends, softmax, version=2)
    for name, code in (("MAXIMUM", OPS.MAXIMUM), ("MINIMUM", OPS.MINIMUM)):
        pair = [net.x(1, 30, kind=TYPES.INT32), net.x(1, 30, kind=TYPES.INT32)]
        net.op(code, pair, [net.y(f"{name} of ids", 1, 30, kind=TYPES.INT32)], schema.MaximumMinimumOptionsT())
        pair = [net.x(1, 30), net.x(1, 1)]
        net.op(code, pair, [net.y(name, 1, 30, scale=0.05, zero=3)], schema.MaximumMinimumOptionsT(), version=2)


def pools(net):
    for name, code in (("max", OPS.MAX_POOL_2D), ("average", OPS.AVERAGE_POOL_2D)):
        for (h, w, c), kernel, stride, padding in (
            ((8, 8, 5), 2, 2, VALID),
            ((9, 7, 4), 3, 2, SAME),
            ((5, 6, 3), 3, 1, SAME),
        ):
            options = window(schema.Pool2DOptionsT(), stride=(stride, stride), padding=padding, activation=RELU)
            options.filterHeight = options.filterWidth = kernel
            shape = (made(h, kernel, stride, padding, 1), made(w, kernel, stride, padding, 1), c)
            ends = [net.y(f"{name} pool {kernel} by {stride}, {padding}", 1, *shape, scale=0.05, zero=3)]
            net.op(code, [net.x(1, h, w, c)], ends, options, version=2)
    for axes, out in (((1, 2), (1, 6)), ((3,), (1, 5, 4)), ((1,), (1, 4, 6))):
        options = schema.ReducerOptionsT()
        options.keepDims = False
        net.op(OPS.MEAN, [net.x(1, 5, 4, 6), net.ints(axes)], [net.y(f"mean over {axes}", *out)], options, version=2)


def moves(net):
    kept = {"scale": 0.05, "zero": 3}
    net.op(
        OPS.PAD,
        [net.x(1, 3, 4, 2), net.ints([[0, 0], [1, 2], [0, 3], [1, 0]])],
        [net.y("pad", 1, 6, 7, 3, **kept)],
        schema.PadOptionsT(),
        version=2,
    )
    net.op(
        OPS.TRANSPOSE,
        [net.x(1, 3, 4, 2), net.ints([0, 3, 1, 2])],
        [net.y("transpose", 1, 2, 3, 4, **kept)],
        schema.TransposeOptionsT(),
        version=2,
    )
    net.op(
        OPS.STRIDED_SLICE,
        [net.x(1, 9, 4), net.ints([0, 7, 0]), net.ints([0, 1, 0]), net.ints([1, -2, 1])],
        [net.y("slice backwards", 1, 3, 4, **kept)],
        schema.StridedSliceOptionsT(),
        beginMask=5,
        endMask=5,
        version=2,
    )
    net.op(
        OPS.SLICE,
        [net.x(2, 5, 3), net.ints([0, 1, 1]), net.ints([2, 3, 2])],
        [net.y("slice", 2, 3, 2, **kept)],
        schema.SliceOptionsT(),
        version=2,
    )
    parts = [net.x(1, 3, 2), net.x(1, 3, 5), net.x(1, 3, 1)]
    net.op(
        OPS.CONCATENATION,
        parts,
        [net.y("concatenation", 1, 3, 8, **kept)],
        schema.ConcatenationOptionsT(),
        axis=-1,
        version=2,
    )
    net.op(
        OPS.PACK,
        [net.x(3, 2), net.x(3, 2)],
        [net.y("pack", 3, 2, 2, **kept)],
        schema.PackOptionsT(),
        axis=1,
        valuesCount=2,
        version=2,
    )
    ends = [net.y("split, first", 1, 2, 4, **kept), net.y("split, second", 1, 2, 4, **kept)]
    net.op(OPS.SPLIT, [net.ints(1), net.x(1, 4, 4)], ends, schema.SplitOptionsT(), numSplits=2, version=2)
    net.op(
        OPS.RESIZE_NEAREST_NEIGHBOR,
        [net.x(1, 3, 2, 4), net.ints([6, 6])],
        [net.y("resize", 1, 6, 6, 4, **kept)],
        schema.ResizeNearestNeighborOptionsT(),
        version=2,
    )
    table = net.hand.tensor(
        "table",
        [9, 6],
        TYPES.INT8,
        data=net.random.integers(-128, 128, (9, 6), dtype=np.int8),
        scale=0.05,
        zero_point=3,
    )
    ids = net.inner(1, 3, kind=TYPES.INT32)
    wide = net.inner(1, 3, kind=TYPES.INT32)
    net.op(OPS.MINIMUM, [net.x(1, 3, kind=TYPES.INT32), net.ints([[8, 8, 8]])], [wide], schema.MaximumMinimumOptionsT())
    net.op(OPS.MAXIMUM, [wide, net.ints([[0, 0, 0]])], [ids], schema.MaximumMinimumOptionsT())
    net.op(OPS.GATHER, [table, ids], [net.y("rows of a table", 1, 3, 6, **kept)], schema.GatherOptionsT(), version=2)
    for columns in (6, 7):
        values = net.random.integers(-8, 8, (9, columns), dtype=np.int8)
        narrow = net.hand.tensor(f"narrow {columns}", [9, columns], TYPES.INT8, data=values, scale=0.05, zero_point=3)
        ends = [net.y(f"packed rows of {columns}", 1, 3, columns, **kept)]
        net.op(OPS.GATHER, [narrow, ids], ends, schema.GatherOptionsT(), version=2)
    net.op(
        OPS.GATHER,
        [net.x(1, 7), net.ints([6, 0, 3])],
        [net.y("chosen columns", 1, 3, **kept)],
        schema.GatherOptionsT(),
        axis=1,
        version=2,
    )
    net.op(
        OPS.RESHAPE,
        [net.x(1, 6), net.ints([1, 2, 3])],
        [net.y("reshape", 1, 2, 3, **kept)],
        schema.ReshapeOptionsT(),
        newShape=[1, 2, 3],
    )


def chain(net):
    """Layers that follow each other, so that outputs lie over inputs in the arena."""
    x = net.x(1, 12, 12, 4)
    weights, scale = net.weights((8, 3, 3, 4))
    first = net.inner(1, 12, 12, 8)
    net.op(
        OPS.CONV_2D,
        [x, weights, net.bias(8, scale)],
        [first],
        window(schema.Conv2DOptionsT(), activation=RELU),
        version=3,
    )
    weights, scale = net.weights((1, 3, 3, 8), axis=3)
    second = net.inner(1, 6, 6, 8)
    options = window(schema.DepthwiseConv2DOptionsT(), stride=(2, 2))
    options.depthMultiplier = 1
    net.op(OPS.DEPTHWISE_CONV_2D, [first, weights, net.bias(8, scale)], [second], options, version=3)
    weights, scale = net.weights((8, 1, 1, 8))
    third = net.inner(1, 6, 6, 8)
    net.op(OPS.CONV_2D, [second, weights, net.bias(8, scale)], [third], window(schema.Conv2DOptionsT()), version=3)
    fourth = net.inner(1, 6, 6, 8)
    net.op(OPS.ADD, [second, third], [fourth], schema.AddOptionsT(), version=2)
    pool = window(schema.Pool2DOptionsT(), stride=(2, 2), padding=VALID)
    pool.filterHeight = pool.filterWidth = 2
    fifth = net.inner(1, 3, 3, 8)
    net.op(OPS.MAX_POOL_2D, [fourth], [fifth], pool, version=2)
    flat = net.inner(1, 72)
    net.op(OPS.RESHAPE, [fifth, net.ints([1, 72])], [flat], schema.ReshapeOptionsT(), newShape=[1, 72])
    weights, scale = net.weights((10, 72), per_channel=False)
    logits = net.inner(1, 10, scale=3.0, zero=0)
    net.op(
        OPS.FULLY_CONNECTED, [flat, weights, net.bias(10, scale)], [logits], schema.FullyConnectedOptionsT(), version=5
    )
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    net.op(OPS.SOFTMAX, [logits], [net.y("a whole chain", 1, 10, scale=1 / 256, zero=-128)], softmax, version=2)
    net.outputs["its logits"] = logits


def legacy(net):
    """UINT8 as converters wrote it once: a scale and a zero point for all weights of a layer."""
    byte = {"kind": TYPES.UINT8, "zero": 117}

    def weights(*shape):
        values, scale = net.random.integers(0, 256, shape).astype(np.uint8), float(net.random.uniform(0.002, 0.01))
        name = f"w{len(net.hand.graph.tensors)}"
        quantized = {"data": values, "scale": scale, "zero_point": int(net.random.integers(90, 170))}
        return net.hand.tensor(name, list(shape), TYPES.UINT8, **quantized), scale

    def y(case, *shape, scale=0.07, zero=131):
        return net.y(f"{case} of bytes", *shape, kind=TYPES.UINT8, scale=scale, zero=zero)

    for name, ((h, w, c), (kh, kw), out, options) in CONVOLUTIONS.items():
        stride, padding = options.get("stride", (1, 1)), options.get("padding", SAME)
        dilation = options.get("dilation", (1, 1))
        shape = (made(h, kh, stride[0], padding, dilation[0]), made(w, kw, stride[1], padding, dilation[1]))
        for kind, code, sizes, channels in (
            ("convolution", OPS.CONV_2D, (out, kh, kw, c), out),
            ("depthwise", OPS.DEPTHWISE_CONV_2D, (1, kh, kw, 2 * c), 2 * c),
        ):
            values, scale = weights(*sizes)
            asked = schema.Conv2DOptionsT() if code == OPS.CONV_2D else schema.DepthwiseConv2DOptionsT()
            asked = window(asked, **options)
            if code == OPS.DEPTHWISE_CONV_2D:
                asked.depthMultiplier = 2
            ends = [y(f"{kind} {name}", 1, *shape, channels)]
            net.op(code, [net.x(1, h, w, c, **byte), values, net.bias(channels, scale)], ends, asked)
    for rows, depth, batch in ((10, 64, 1), (5, 9, 3)):
        values, scale = weights(rows, depth)
        given = [net.x(batch, depth, **byte), values, net.bias(rows, scale)]
        net.op(OPS.FULLY_CONNECTED, given, [y(f"dense {rows}", batch, rows)], schema.FullyConnectedOptionsT())
    for name, code in (("max", OPS.MAX_POOL_2D), ("average", OPS.AVERAGE_POOL_2D)):
        options = window(schema.Pool2DOptionsT(), stride=(2, 2), padding=SAME)
        options.filterHeight = options.filterWidth = 3
        ends = [y(f"{name} pool", 1, 5, 4, 4, scale=0.05, zero=117)]
        net.op(code, [net.x(1, 9, 7, 4, **byte)], ends, options)
    pair = [net.x(1, 4, 5, 3, **byte), net.x(1, 4, 5, 3, scale=0.031, **byte)]
    net.op(OPS.ADD, pair, [y("add", 1, 4, 5, 3, scale=0.06)], schema.AddOptionsT())
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    net.op(OPS.SOFTMAX, [net.x(2, 10, scale=0.1, **byte)], [y("softmax", 2, 10, scale=1 / 256, zero=0)], softmax)
    parts = [net.x(1, 3, 2, **byte), net.x(1, 3, 5, **byte)]
    ends = [y("concatenation", 1, 3, 7, scale=0.05, zero=117)]
    net.op(OPS.CONCATENATION, parts, ends, schema.ConcatenationOptionsT(), axis=-1)
    pads = net.ints([[0, 0], [1, 2], [0, 3], [1, 0]])
    ends = [y("pad", 1, 6, 7, 3, scale=0.05, zero=117)]
    net.op(OPS.PAD, [net.x(1, 3, 4, 2, **byte), pads], ends, schema.PadOptionsT())


def resizes(net):
    for name, (h, w, c), (kh, kw), out, stride, padding, size in (
        ("twice as large", (4, 5, 3), (3, 3), 4, (2, 2), SAME, (8, 10)),
        ("valid", (3, 4, 6), (3, 2), 5, (2, 1), VALID, (7, 5)),
        ("of stride 1", (5, 4, 2), (2, 2), 3, (1, 1), SAME, (5, 4)),
    ):
        weights, scale = net.weights((out, kh, kw, c))
        options = schema.TransposeConvOptionsT()
        options.strideH, options.strideW, options.padding = *stride, padding
        given = [net.ints([1, *size, out]), weights, net.x(1, h, w, c), net.bias(out, scale)]
        net.op(OPS.TRANSPOSE_CONV, given, [net.y(f"convolution that enlarges, {name}", 1, *size, out)], options, 3)
        net.op(OPS.TRANSPOSE_CONV, given[:3], [net.y(f"{name}, without a bias", 1, *size, out)], options, 2)
    for aligned, half, size in ((0, 0, (7, 9)), (1, 0, (8, 3)), (0, 1, (9, 2)), (0, 1, (3, 4)), (0, 0, (2, 2))):
        options = schema.ResizeBilinearOptionsT()
        options.alignCorners, options.halfPixelCenters = bool(aligned), bool(half)
        ends = [net.y(f"bilinear to {size}, {aligned}, {half}", 1, *size, 3, scale=0.05, zero=3)]
        net.op(OPS.RESIZE_BILINEAR, [net.x(1, 4, 5, 3), net.ints(size)], ends, options, 3)
    for name, code, options in (
        ("largest", OPS.ARG_MAX, schema.ArgMaxOptionsT()),
        ("smallest", OPS.ARG_MIN, schema.ArgMinOptionsT()),
    ):
        options.outputType = TYPES.INT32
        for axis, shape in ((1, (2, 6)), (-1, (2, 40))):
            given = net.x(2, 40, 6)
            if axis == -1:
                given = net.x(2, 40, 300)
            net.op(code, [given, net.ints(axis)], [net.y(f"{name} along {axis}", *shape, kind=TYPES.INT32)], options, 2)


FAMILIES = {each.__name__: each for each in (spread, channelwise, dense, values, pools, moves, chain, legacy, resizes)}


@pytest.fixture(scope="module", params=FAMILIES)
def project(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    net = Net(ByHand(), np.random.default_rng(7), {}, {})
    FAMILIES[request.param](net)
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    path = net.hand.write(folder / "net.tflite")
    (folder / "c").mkdir()
    return path, folder / "c", lower_integer_file(path, folder / "c", name=request.param)


def test_every_output_is_that_of_the_reference_kernels(project):
    path, folder, lowered = project
    (signature,) = lowered.signatures
    theirs = open_session(path, kernels="reference", trusted=True)
    ours = open_session(folder / "model.c", trusted=True)
    inputs = random_inputs(read_graph(path), SAMPLES, seed=5)
    differing = set()
    for number in range(SAMPLES):
        feeds = {info.name: inputs[k][number] for k, info in enumerate(signature.inputs)}
        want, got = theirs.run(feeds), ours.run(feeds)
        differing |= {name for name in want if want[name].tobytes() != got[name].tobytes()}
        assert any(len(np.unique(value)) > 3 or value.size < 4 for value in want.values())
    assert not differing


def test_it_is_strict_c99_and_its_selftest_passes(project):
    _, folder, _ = project
    flags = "CFLAGS=-O1 -Werror -pedantic -fsanitize=undefined -fno-sanitize-recover=all"
    done = subprocess.run(["make", "-s", "-C", str(folder), "test", flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vectors agree" in done.stdout
