"""The mean error that rounding the weights causes in each output channel, which the bias then takes back.

Rounding shifts the mean of an output channel by (W_q - W) E[x]. In narrow nets and with 4-bit weights that shift is a
large part of the error, and subtracting it from the bias costs nothing at run time. After Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2; E[x] is that of the calibration set.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from converters.tflite.operators import OPERATORS
from converters.tflite.structure import Node, View

__all__ = ["Means", "mean_key", "mean_shift"]

# Mean of each channel of an activation, by (subgraph, tensor, number of channels).
Means: TypeAlias = dict[tuple[int, int, int], np.ndarray]
CORRECTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def mean_key(view: View, node: Node) -> tuple[int, int, int] | None:
    """Which mean the correction of this operator needs; None for operators that are not corrected."""
    if node.kind not in CORRECTED or not view.is_constant(node.inputs[OPERATORS[node.kind].weight]):
        return None
    data = node.inputs[OPERATORS[node.kind].data]
    # A fully connected layer may flatten its input: its channels are its weights' columns.
    shape = view.tensor(node.inputs[1] if node.kind == "FULLY_CONNECTED" else data).shape
    return view.index, data, int(shape[-1])


def mean_shift(kind: str, error: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Shift of the mean of each output channel; padding at the borders is taken as if it were image.

    Args:
        error: Dequantized minus float weights, in the operator's layout.
        mean: Mean of each input channel.
    """
    shift: np.ndarray
    if kind == "DEPTHWISE_CONV_2D":
        shift = error.sum(axis=(0, 1, 2)) * np.repeat(mean, error.shape[3] // mean.size)
    elif kind == "CONV_2D":
        groups = mean.size // error.shape[3]
        taps = error.sum(axis=(1, 2)).reshape(groups, error.shape[0] // groups, error.shape[3])
        shift = np.einsum("goi,gi->go", taps, mean.reshape(groups, -1)).reshape(-1)
    else:
        shift = error.reshape(error.shape[0], -1) @ mean
    return shift
