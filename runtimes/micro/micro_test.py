"""TensorFlow Lite Micro's wheel against LiteRT's reference kernels, and what it says of memory."""

import itertools

import numpy as np
import pytest

from edge_deploy.core.errors import BadInput, Unsupported
from runtimes.formats.by_hand_test import OPS, TYPES, ByHand, schema
from runtimes.micro.arena import KERNELS, measure_arena
from runtimes.micro.interpreter import inlined_bytes, open_interpreter
from runtimes.session import open_session

pytest.importorskip("tflite_micro")


@pytest.fixture(scope="module")
def yardstick(data):
    return next((data / "models" / "yardstick_cnn_int8").glob("*.tflite"))


def test_every_value_is_that_of_the_reference_kernels(yardstick):
    ours = open_session(yardstick, backend="tflite-micro", trusted=True)
    theirs = open_session(yardstick, kernels="reference", trusted=True)
    (info,) = ours.signature.inputs
    generator = np.random.default_rng(0)
    for _ in range(5):
        x = {info.name: generator.integers(-128, 128, info.shape, np.int8)}
        for name, values in theirs.run(x).items():
            np.testing.assert_array_equal(ours.run(x)[name], values)
    assert KERNELS in ours.kernels


def test_the_arena_is_the_smallest_that_works(yardstick):
    arena = measure_arena(yardstick)
    assert arena.total_bytes == arena.head_bytes + arena.tail_bytes
    assert (arena.kernels, sum(arena.parts.values()) <= arena.tail_bytes) == ("x86-64 reference kernels", True)
    model = inlined_bytes(yardstick)
    assert open_interpreter(model, where="model", arena_bytes=arena.total_bytes)
    with pytest.raises(BadInput, match="TensorFlow Lite Micro refuses it"):
        open_interpreter(model, where="model", arena_bytes=arena.head_bytes)


@pytest.mark.parametrize("widths", [(13, 64, 16), (32, 64, 64, 1), (4, 300, 2)])
def test_dense_layers_get_what_preparing_them_needs(tmp_path, widths):
    # They say nothing of memory when it is short: they refuse a type, or end the process.
    hand, random = ByHand(), np.random.default_rng(0)
    x = last = hand.tensor("x", [1, widths[0]], TYPES.INT8, scale=0.05, zero_point=3)
    for number, (depth, rows) in enumerate(itertools.pairwise(widths)):
        scale = random.uniform(0.002, 0.02, rows)
        values = random.integers(-127, 128, (rows, depth), dtype=np.int8)
        weights = hand.tensor(f"w{number}", [rows, depth], TYPES.INT8, data=values, scale=scale, axis=0)
        zeros = np.zeros(rows, np.int32)
        bias = hand.tensor(f"b{number}", [rows], TYPES.INT32, data=zeros, scale=scale * 0.05)
        made = hand.tensor(f"y{number}", [1, rows], TYPES.INT8, scale=0.05, zero_point=3)
        hand.operator(OPS.FULLY_CONNECTED, [last, weights, bias], [made], schema.FullyConnectedOptionsT(), 5)
        last = made
    hand.signature("main", {"x": x}, {"y": last})
    path = hand.write(tmp_path / "dense.tflite")
    arena = measure_arena(path)
    assert arena.head_bytes + arena.tail_bytes < arena.total_bytes < 1.5 * arena.tail_bytes + 2000
    session = open_session(path, backend="tflite-micro", trusted=True)
    feed = {"x": random.integers(-128, 128, (1, widths[0]), np.int8)}
    assert np.abs(session.run(feed)["y"].astype(int) - open_session(path, trusted=True).run(feed)["y"]).max() <= 1


def test_a_model_that_it_cannot_run_is_refused_in_its_own_words(data):
    path = data / "models" / "imagenet_coral_int8_tflite" / "mobilenet_v1_0.25_128_quant.tflite"
    with pytest.raises(BadInput, match=r"refuses it: .*CONV_2D \(number 0\) failed to prepare"):
        open_session(path, backend="tflite-micro", trusted=True)


def test_what_its_wheel_has_not_is_refused(yardstick):
    for wish in ({"threads": 2}, {"kernels": "builtin"}):
        with pytest.raises(Unsupported, match="TensorFlow Lite Micro"):
            open_session(yardstick, backend="tflite-micro", trusted=True, **wish)
