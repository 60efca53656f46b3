"""Run a Keras graph layer by layer: the seconds of each layer, and halves as functions of arrays.

Whatever Keras computes with; measurements are made with PyTorch under it, which computes in the calling thread where it
has one thread: then times of layers add up to that of a half, and a half stays on the cores its thread is kept on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_deploy.core.clock import Clock
from edge_deploy.core.cut import Cut
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.require import require

__all__ = ["halves_of", "one_thread", "random_image", "time_layers"]

DIFFERENT_IN_TRAINING = ("BatchNormalization", "Dropout")


def one_thread() -> str:
    """Let Keras compute on the calling thread alone, and name what it computes with.

    Raises:
        Unsupported: Keras was started with another backend than PyTorch, whose threads would not stay on a core.
        MissingExtra: Keras or PyTorch is not installed.
    """
    keras = require("keras", extra="export-tflite")
    backend = keras.backend.backend()
    if backend != "torch":
        raise Unsupported(f"Keras computes with {backend}: layers are timed with KERAS_BACKEND=torch.")
    torch = require("torch", extra="export-tflite")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    return f"Keras {keras.__version__} on PyTorch {torch.__version__}, layer by layer, one thread"


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
        return {name: _array(tensors[name]) for name in outputs}

    return run


def _call(model: Any, layer: Layer, tensors: dict[str, Any]) -> None:
    sources = [tensors[name] for name in layer.inputs]
    keywords = {"training": False} if layer.op in DIFFERENT_IN_TRAINING else {}
    tensors[layer.name] = model.get_layer(layer.name)(sources if len(sources) > 1 else sources[0], **keywords)


def _tensor(array: np.ndarray) -> Any:
    return require("keras", extra="export-tflite").ops.convert_to_tensor(array)


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(require("keras", extra="export-tflite").ops.convert_to_numpy(tensor))
