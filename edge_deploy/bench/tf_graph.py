"""A float TFLite file of a plain CNN as a TensorFlow function, so that TensorFlow's own converter can quantize it.

TensorFlow's converter takes no PyTorch nets. Their float graph, as litert-torch writes it, is rebuilt here operator by
operator from the constants in the file; the caller compares it with the file before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from converters.tflite.flatbuffer import constant, op_name, read_model, schema
from edge_deploy.core.errors import Unsupported
from edge_deploy.core.require import require

__all__ = ["tf_function_of"]


def tf_function_of(path: Path) -> Callable[[Any], Any]:
    """What the file's first graph computes, from its one input to its one output, in TensorFlow operators.

    Raises:
        Unsupported: When called, for an operator that plain CNNs do not have.
    """
    model = read_model(path)
    graph = model.subgraphs[0]

    def compute(image: Any) -> Any:
        values = {int(graph.inputs[0]): image}
        for operator in graph.operators:
            given = []
            for index in (int(i) for i in operator.inputs):
                stored = constant(model, graph.tensors[index]) if index >= 0 and index not in values else None
                given.append(values[index] if stored is None and index >= 0 else stored)
            result = _apply(op_name(model, operator), given, operator.builtinOptions)
            values[int(operator.outputs[0])] = result
        return values[int(graph.outputs[0])]

    return compute


def _apply(kind: str, given: list[Any], options: Any) -> Any:
    tf = require("tensorflow", extra="export-tflite")
    match kind:
        case "CONV_2D":
            value = tf.nn.conv2d(
                given[0],
                given[1].transpose(1, 2, 3, 0),
                (options.strideH, options.strideW),
                _padding(options),
                dilations=(options.dilationHFactor, options.dilationWFactor),
            )
            return _activated(tf.nn.bias_add(value, given[2].reshape(-1)), options)
        case "DEPTHWISE_CONV_2D":
            weights = given[1].reshape(*given[1].shape[1:3], -1, options.depthMultiplier)
            steps = (1, options.strideH, options.strideW, 1)
            value = tf.nn.depthwise_conv2d(given[0], weights, steps, _padding(options))
            return _activated(tf.nn.bias_add(value, given[2].reshape(-1)), options)
        case "FULLY_CONNECTED":
            return _activated(tf.matmul(given[0], given[1].T) + given[2].reshape(-1), options)
        case "ADD":
            return _activated(tf.add(given[0], given[1]), options)
        case "MUL":
            return _activated(tf.multiply(given[0], given[1]), options)
        case "PAD":
            return tf.pad(given[0], given[1])
        case "STRIDED_SLICE":
            masks = {"begin_mask": options.beginMask, "end_mask": options.endMask}
            return tf.strided_slice(given[0], given[1], given[2], given[3], **masks)
        case "MEAN":
            return tf.reduce_mean(given[0], given[1].reshape(-1).tolist(), keepdims=bool(options.keepDims))
        case "AVERAGE_POOL_2D" | "MAX_POOL_2D":
            pool = tf.nn.avg_pool2d if kind == "AVERAGE_POOL_2D" else tf.nn.max_pool2d
            window, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
            return _activated(pool(given[0], window, strides, _padding(options)), options)
        case "RESHAPE":
            return tf.reshape(given[0], given[1])
    raise Unsupported(f"{kind}: not rebuilt in TensorFlow for the comparison with its converter.")


def _padding(options: Any) -> str:
    return "SAME" if options.padding == schema().Padding.SAME else "VALID"


def _activated(value: Any, options: Any) -> Any:
    tf = require("tensorflow", extra="export-tflite")
    kinds = schema().ActivationFunctionType
    fused = options.fusedActivationFunction
    if fused not in (kinds.NONE, kinds.RELU, kinds.RELU6):
        raise Unsupported(f"fused activation {fused}: not rebuilt in TensorFlow for the comparison with its converter.")
    return {kinds.RELU: tf.nn.relu, kinds.RELU6: tf.nn.relu6}.get(fused, tf.identity)(value)
