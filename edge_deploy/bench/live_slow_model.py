"""A model that takes an edge long enough for the link to decide where it runs: convolutions with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from converters.tflite.emit import Emitter

__all__ = ["write_slow_model"]

# The image is as small as the first packets of a connection, and is enlarged where it is computed.
IMAGE, SIZE, CHANNELS, LAYERS = 32, 168, 64, 16
CLASSES = 10


def write_slow_model(path: Path, *, layers: int = LAYERS) -> Path:
    """An image [1, 32, 32, 3] of floats to 10 numbers; each layer between takes 0.26 GMAC."""
    emitter = Emitter("slow")
    graph = emitter.graph("main")
    rng = np.random.default_rng(0)
    image = graph.tensor("image", (1, IMAGE, IMAGE, 3))
    enlarged = graph.tensor("enlarged", (1, SIZE, SIZE, 3))
    size = graph.values("size", np.array([SIZE, SIZE], np.int32))
    graph.op("RESIZE_NEAREST_NEIGHBOR", [image, size], [enlarged], "ResizeNearestNeighborOptions")
    side = SIZE // 2
    last, width = enlarged, 3
    for number in range(layers):
        out = graph.tensor(f"conv{number}", (1, side, side, CHANNELS))
        weights = rng.normal(size=(CHANNELS, 3, 3, width)) * np.sqrt(2 / (9 * width))
        kernel = graph.use(emitter.constant(f"conv{number}/kernel", weights.astype(np.float32)))
        bias = graph.use(emitter.constant(f"conv{number}/bias", np.zeros(CHANNELS, np.float32)))
        stride = 2 if number == 0 else 1
        graph.op(
            "CONV_2D",
            [last, kernel, bias],
            [out],
            "Conv2DOptions",
            strideH=stride,
            strideW=stride,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=1,
        )
        last, width = out, CHANNELS
    mean = graph.tensor("mean", (1, CHANNELS))
    graph.op("MEAN", [last, graph.values("axes", np.array([1, 2], np.int32))], [mean], "ReducerOptions", keepDims=False)
    weight = graph.use(emitter.constant("dense/kernel", rng.normal(size=(CLASSES, CHANNELS)).astype(np.float32)))
    dense = graph.tensor("dense", (1, CLASSES))
    graph.op("FULLY_CONNECTED", [mean, weight], [dense], "FullyConnectedOptions")
    graph.sign("main", {"image": image}, {"dense": dense})
    path.parent.mkdir(parents=True, exist_ok=True)
    emitter.write(path)
    return path
