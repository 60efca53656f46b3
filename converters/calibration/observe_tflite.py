"""Statistics of every layer of a float TFLite file, read from the interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration.accumulate import LayerObserver
from converters.calibration.statistics import LayerStatistics
from edge_deploy.core.tensor import TensorInfo

__all__ = ["observe_file"]

BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
RELU, RELU6 = 1, 3  # ActivationFunctionType of the schema
BOUNDS = {"RELU6": (6.0,), "LOGISTIC": (0.001, 0.999), "TANH": (-0.999, 0.999)}


def observe_file(
    path: Path, samples: dict[str, np.ndarray], sources: tuple[TensorInfo, ...]
) -> tuple[LayerStatistics, ...]:
    """Run all samples and describe every layer that computes float values.

    Args:
        samples: Arrays [samples, ...] by source input name.

    Raises:
        BadInput: Samples do not fit the inputs.
        ToolchainError: The interpreter cannot run the file.
    """
    from converters.tflite.calibrate import activations
    from converters.tflite.flatbuffer import read_model, write_model
    from converters.tflite.signatures import ensure_signatures
    from converters.tflite.structure import make_names_unique, views

    model = read_model(path)
    make_names_unique(model)
    ensure_signatures(model)
    view = views(model)[int(model.signatureDefs[0].subgraphIndex)]
    watched: dict[int, LayerObserver] = {}
    for node in view.nodes:
        if node.outputs and view.is_activation(node.outputs[0]):
            watched[node.outputs[0]] = _observer(model, view, node)
    count, seen, batch = len(next(iter(samples.values()))), 0, _batch(model, sources)
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "float.tflite"
        write_model(model, named)
        for read in activations(named, samples, sources):
            for index, observer in watched.items():
                values = read(index)
                if values.ndim > 0 and len(values) == batch:
                    observer.see(values[: count - seen])  # the last batch is filled up with the first samples
            seen += batch
    return tuple(observer.statistics() for observer in watched.values() if observer.lows)


def _batch(model: Any, sources: tuple[TensorInfo, ...]) -> int:
    from converters.tflite.signatures import describe

    return max(max((info.shape[0] for info in describe(model, sources, ())[0].inputs if info.shape), default=1), 1)


def _observer(model: Any, view: Any, node: Any) -> LayerObserver:
    from converters.tflite.flatbuffer import constant

    fused = getattr(node.operator.builtinOptions, "fusedActivationFunction", 0)
    bias = None
    if node.kind in BIASED and len(node.inputs) > 2 and view.is_constant(node.inputs[2]):
        bias = constant(model, view.tensor(node.inputs[2]))
    return LayerObserver(
        layer=node.layer,
        axis=-1,
        rectified=node.kind in ("RELU", "RELU6") or fused in (RELU, RELU6),
        bounds=BOUNDS["RELU6"] if fused == RELU6 else BOUNDS.get(node.kind),
        bias=bias,
    )
