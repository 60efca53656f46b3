"""A pooling that averages the whole image becomes a mean, which may have a scale of its own.

The INT8 kernels let an AVERAGE_POOL_2D share the scale of its input. The mean of an image is far smaller than its
largest pixel, so that the layer behind, often the one that decides, would read a few bits only. MEAN computes the same
and takes two scales in every kernel set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.tflite.flatbuffer import add_buffer, add_opcode, add_tensor, dtype_name, schema, tensor_name

__all__ = ["pool_to_mean"]

IMAGE_AXES = (1, 2)


def pool_to_mean(model: Any, graph: Any, operator: Any) -> None:
    """Make an AVERAGE_POOL_2D over the whole image of a fixed size a MEAN over height and width, in place."""
    image, result = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
    options = operator.builtinOptions
    if dtype_name(image) != "float32" or options.fusedActivationFunction != schema().ActivationFunctionType.NONE:
        return
    sizes = [_fixed_sizes(image), _fixed_sizes(result)]
    # With one window of the image's size nothing is padded, whatever the padding is called.
    if sizes != [(int(options.filterHeight), int(options.filterWidth)), (1, 1)]:
        return
    axes = add_tensor(graph, f"{tensor_name(result)}/axes_{len(graph.tensors)}", (len(IMAGE_AXES),), "int32")
    graph.tensors[axes].buffer = add_buffer(model, np.array(IMAGE_AXES, np.int32))
    operator.opcodeIndex = add_opcode(model, "MEAN", 1)
    operator.inputs = [int(operator.inputs[0]), axes]
    operator.builtinOptionsType = schema().BuiltinOptions.ReducerOptions
    operator.builtinOptions = schema().ReducerOptionsT()
    operator.builtinOptions.keepDims = True


def _fixed_sizes(tensor: Any) -> tuple[int, int] | None:
    """Height and width of an NHWC tensor; None where they are not known in the file."""
    shape = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
    if shape is None or len(shape) != 4 or min(int(shape[1]), int(shape[2])) < 1:
        return None
    return int(shape[1]), int(shape[2])
