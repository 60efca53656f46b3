"""How far every layer of a quantized TFLite file is from the float file on the same samples, and its weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters.tflite.flatbuffer import constant, dtype_name, op_name, read_model, tensor_name
from converters.tflite.signatures import describe, match_inputs
from edge_deploy.core.layer_errors import LayerError, LayerErrors, WeightHistogram, snr_db, weight_histogram
from edge_deploy.core.require import require
from edge_deploy.core.tensor import TensorInfo, encode_input

__all__ = ["layer_errors"]

SAMPLES = 16
LARGEST_WEIGHT = 1 << 22  # elements; of larger tables evenly spaced rows are compared
WEIGHT_SLOT = {
    "CONV_2D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
    "EMBEDDING_LOOKUP": 1,
    "GATHER": 0,
}


def layer_errors(
    float_file: Path, quantized_file: Path, samples: dict[str, np.ndarray] | None, sources: tuple[TensorInfo, ...]
) -> LayerErrors:
    """Compare two files whose layers carry the same names.

    Args:
        samples: Arrays [samples, ...] by source input name; the first 16 are run. None compares weights only.
        sources: The source's inputs, in whose terms the samples are.
    """
    models = [read_model(path) for path in (float_file, quantized_file)]
    outputs = _output_errors((float_file, quantized_file), models, samples, sources) if samples is not None else {}
    weights = _weight_errors(*models)
    names = [name for name in _results(models[1]) if name in outputs or name in weights]
    layers = tuple(
        LayerError(
            layer=name,
            snr_db=outputs.get(name),
            weight_snr_db=weights[name][0] if name in weights else None,
            weights=weights[name][1] if name in weights else None,
        )
        for name in names
    )
    count = 0 if samples is None else min(SAMPLES, len(next(iter(samples.values()))))
    method = f"output of each layer on {count} samples against the float file, builtin kernels" if count else "weights"
    return LayerErrors(layers=layers, method=method)


def _results(model: Any) -> dict[str, int]:
    """Name of each layer of the first signature's graph with the index of its tensor."""
    graph = _graph(model)
    return {tensor_name(graph.tensors[op.outputs[0]]): int(op.outputs[0]) for op in graph.operators}


def _graph(model: Any) -> Any:
    return model.subgraphs[int(model.signatureDefs[0].subgraphIndex)]


def _output_errors(
    files: tuple[Path, Path], models: list[Any], samples: dict[str, np.ndarray], sources: tuple[TensorInfo, ...]
) -> dict[str, float]:
    results = [_results(model) for model in models]
    shared = [name for name in results[1] if name in results[0]]
    signal, noise = dict.fromkeys(shared, 0.0), dict.fromkeys(shared, 0.0)
    runs = [_runs(file, model, samples, sources) for file, model in zip(files, models, strict=True)]
    for want_of, got_of in zip(*runs, strict=True):
        for name in list(signal):
            want, got = want_of(results[0][name]), got_of(results[1][name])
            if want is None or got is None or want.shape != got.shape or not np.isfinite(want).all():
                del signal[name]
                continue
            signal[name] += float(np.square(want).sum())
            noise[name] += float(np.square(want - got).sum())
    return {name: snr_db(signal[name], noise[name]) for name in signal}


def _runs(file: Path, model: Any, samples: dict[str, np.ndarray], sources: tuple[TensorInfo, ...]) -> Iterator[Any]:
    """After each inference a function from tensor index to real values, or None where they are no numbers."""
    runtime = require("ai_edge_litert.interpreter", extra="run-tflite")
    resolver = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = runtime.Interpreter(
        str(file), experimental_op_resolver_type=resolver, experimental_preserve_all_tensors=True, num_threads=1
    )
    signature = describe(model, sources, ())[0]
    feeding = match_inputs(signature, sources)
    runner = interpreter.get_signature_runner(signature.name)
    subgraph = int(model.signatureDefs[0].subgraphIndex)
    graph = _graph(model)

    def read(index: int) -> np.ndarray | None:
        tensor = graph.tensors[index]
        if dtype_name(tensor) not in ("float32", "int8", "int16"):
            return None
        values = interpreter.get_tensor(index, subgraph).astype(np.float64)
        found = tensor.quantization
        if found is not None and found.scale is not None and len(found.scale) == 1:
            values = (values - int(found.zeroPoint[0])) * float(found.scale[0])
        real: np.ndarray = values
        return real

    batch = max([info.shape[0] for info in signature.inputs if info.shape] + [1])
    for start in range(0, min(SAMPLES, len(next(iter(samples.values())))), batch):
        feeds = {}
        for info in signature.inputs:
            array = samples[feeding[info.name].name]
            rows = np.arange(start, start + batch) % len(array)
            feeds[info.name] = encode_input(array[rows], source=feeding[info.name], target=info)
        runner(**feeds)
        yield read


def _weight_errors(float_model: Any, quantized_model: Any) -> dict[str, tuple[float, WeightHistogram]]:
    before, after = _weights(float_model), _weights(quantized_model)
    found = {}
    for name, tensor in after.items():
        old = before.get(name)
        if old is None or dtype_name(old) != "float32" or list(old.shape) != list(tensor.shape):
            continue
        rows = _compared_rows(tensor)
        want = np.asarray(constant(float_model, old), np.float64)[rows]
        got = _dequantized(quantized_model, tensor, rows)
        if got is not None:
            error = snr_db(float(np.square(want).sum()), float(np.square(want - got).sum()))
            found[name] = (error, weight_histogram(want, got))
    return found


def _weights(model: Any) -> dict[str, Any]:
    graph = _graph(model)
    found = {}
    for operator in graph.operators:
        slot = WEIGHT_SLOT.get(op_name(model, operator))
        if slot is None or slot >= len(operator.inputs):
            continue
        tensor = graph.tensors[operator.inputs[slot]]
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data) > 0:
            found[tensor_name(graph.tensors[operator.outputs[0]])] = tensor
    return found


def _compared_rows(tensor: Any) -> slice:
    elements = int(np.prod([int(size) for size in tensor.shape], dtype=np.int64))
    return slice(None, None, -(-elements // LARGEST_WEIGHT))


def _dequantized(model: Any, tensor: Any, rows: slice) -> np.ndarray | None:
    values = constant(model, tensor)
    if values is None:
        return None
    values = values[rows].astype(np.float64)
    found = tensor.quantization
    if found is None:
        return values
    block = getattr(found, "details", None)
    if block is not None:
        scales = constant(model, _graph(model).tensors[block.scales])
        if scales is None:
            return None
        blocks = values.reshape(len(values), -1, int(block.blockSize))
        return (blocks * scales.reshape(-1, blocks.shape[1])[rows][:, :, None].astype(np.float64)).reshape(values.shape)
    if found.scale is None or len(found.scale) == 0:
        return values
    scale, zero = np.asarray(found.scale, np.float64), np.asarray(found.zeroPoint, np.float64)
    if len(scale) > 1:
        shape = [1] * values.ndim
        shape[int(found.quantizedDimension)] = len(scale)
        scale, zero = scale.reshape(shape), zero.reshape(shape)
        if int(found.quantizedDimension) == 0:
            scale, zero = scale[rows], zero[rows]
    return (values - zero) * scale
