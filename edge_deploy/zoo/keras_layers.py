"""Run a Keras graph layer by layer: its `LayerGraph`, the seconds of each layer, and halves as functions of arrays.

TensorFlow computes each layer in the calling thread, on one thread, so that times of layers add up to the time of a
half and a half stays on the cores its thread is kept on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_deploy.core.clock import Clock
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo

__all__ = ["halves_of", "layer_graph", "one_thread", "random_image", "time_layers"]

DIFFERENT_IN_TRAINING = ("BatchNormalization", "Dropout")


def one_thread() -> None:
    """Let TensorFlow compute on the calling thread alone; only before it has computed anything in this process.

    Raises:
        Unsupported: TensorFlow has started its threads already.
        MissingExtra: It is not installed.
    """
    tf = require("tensorflow", extra="export-tflite")
    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() == 1 and threading.get_inter_op_parallelism_threads() == 1:
        return
    try:
        threading.set_intra_op_parallelism_threads(1)
        threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise Unsupported(f"TensorFlow has started its threads in this process already ({error}).") from error


def layer_graph(model: Any) -> LayerGraph:
    """The layers of a functional Keras model in its own order; tensors bear the names of the layers that make them.

    Raises:
        Unsupported: A layer is used twice or has several outputs.
    """
    layers, inputs = [], []
    names = {}
    for layer in model.layers:
        outputs = layer.output
        if isinstance(outputs, (list, tuple)):
            raise Unsupported(f"layer {layer.name}: has {len(outputs)} outputs; only layers with one are run alone.")
        names[id(outputs)] = layer.name
        info = _info(layer.name, outputs.shape)
        if type(layer).__name__ == "InputLayer":
            inputs.append(info)
            continue
        sources = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
        layers.append(
            Layer(
                name=layer.name,
                op=type(layer).__name__,
                inputs=tuple(names[id(source)] for source in sources),
                outputs=(info,),
                weight_bytes=4 * int(layer.count_params()),
                macs=_macs(layer, outputs.shape),
            )
        )
    return LayerGraph(
        inputs=tuple(inputs), outputs=tuple(names[id(output)] for output in model.outputs), layers=tuple(layers)
    )


def halves_of(model: Any, graph: LayerGraph, cut: Cut) -> tuple[Callable[..., Any] | None, Callable[..., Any] | None]:
    """Head and tail of a cut as functions from arrays by tensor name to arrays by name; None for an empty one."""
    on_edge = set(cut.edge_layers)
    head = [layer for layer in graph.layers if layer.name in on_edge]
    tail = [layer for layer in graph.layers if layer.name not in on_edge]
    # Outputs of the model that the head makes come from there.
    crossing = [tensor.name for tensor in cut.up]
    finished = [name for name in graph.outputs if name in on_edge]
    return (
        _runner(model, head, dict.fromkeys([*crossing, *finished])) if head else None,
        _runner(model, tail, [tensor.name for tensor in cut.down]) if tail else None,
    )


def time_layers(
    model: Any, graph: LayerGraph, *, clock: Clock, rounds: int = 5, seed: int = 0
) -> tuple[dict[str, float], float]:
    """Median seconds of each layer over whole passes through the model, and of the whole pass; one pass warms up."""
    seconds: dict[str, list[float]] = {layer.name: [] for layer in graph.layers}
    whole = []
    for number in range(rounds + 1):
        tensors = {name: _tensor(array) for name, array in random_image(graph, seed=seed + number).items()}
        began_s = clock.now_s()
        for layer in graph.layers:
            start_s = clock.now_s()
            _call(model, layer, tensors)
            if number:
                seconds[layer.name].append(clock.now_s() - start_s)
        if number:
            whole.append(clock.now_s() - began_s)
    return {name: statistics.median(values) for name, values in seconds.items()}, statistics.median(whole)


def random_image(graph: LayerGraph, *, seed: int) -> dict[str, np.ndarray]:
    """Inputs by name, uniform between 0 and 1."""
    rng = np.random.default_rng(seed)
    return {info.name: rng.random(info.shape, dtype=np.float32) for info in graph.inputs}


def _runner(
    model: Any, layers: Sequence[Layer], wanted: Iterable[str]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    outputs = list(wanted)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: _tensor(array) for name, array in inputs.items()}
        for layer in layers:
            _call(model, layer, tensors)
        return {name: np.asarray(tensors[name]) for name in outputs}

    return run


def _call(model: Any, layer: Layer, tensors: dict[str, Any]) -> None:
    sources = [tensors[name] for name in layer.inputs]
    keywords = {"training": False} if layer.op in DIFFERENT_IN_TRAINING else {}
    tensors[layer.name] = model.get_layer(layer.name)(sources if len(sources) > 1 else sources[0], **keywords)


def _tensor(array: np.ndarray) -> Any:
    return require("tensorflow", extra="export-tflite").constant(array)


def _info(name: str, shape: Sequence[int | None]) -> TensorInfo:
    return TensorInfo(name=name, shape=tuple(-1 if size is None else int(size) for size in shape), dtype="float32")


def _macs(layer: Any, shape: Sequence[int | None]) -> int:
    """Multiply-accumulates of convolutions and dense layers; 0 for others."""
    kernel = getattr(layer, "kernel", None)
    kind = type(layer).__name__
    if kernel is None or kind not in ("Conv2D", "Dense", "DepthwiseConv2D"):
        return 0
    weights = math.prod(int(size) for size in kernel.shape)
    pixels = math.prod(int(size or 1) for size in shape[1:-1])
    return weights * pixels
