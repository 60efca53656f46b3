"""What is known of one tensor at the border of a model: name, shape, dtype, quantization, layout, meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from edge_deploy.core.errors import BadInput

__all__ = ["DType", "Layout", "Meaning", "TensorInfo", "dequantize_output", "encode_input", "to_layout"]

DType: TypeAlias = Literal[
    "float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "int4", "uint4", "int2", "bool"
]
Layout: TypeAlias = Literal["NHWC", "NCHW"]
Meaning: TypeAlias = Literal["probability", "logit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One input, output or intermediate value.

    Attributes:
        shape: -1 stands for a dynamic dimension; dimension 0 is the batch.
        scale: Empty when the values are not quantized; one entry per tensor, several per channel.
        zero_point: As long as `scale`.
        quantized_dimension: The axis that `scale` runs along; None when `scale` has at most one entry.
        layout: Of a four-dimensional image tensor; None for others.
        meaning: Of an output, where it is known.
        labels: Class names of an output, in index order.
        mean: Preprocessing of an image input, per channel: the model expects (pixel - mean) / std.
        id_bounds: Of an id input: rows of the table behind each column; ids are valid in [0, rows).
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    scale: tuple[float, ...] = ()
    zero_point: tuple[int, ...] = ()
    quantized_dimension: int | None = None
    layout: Layout | None = None
    meaning: Meaning | None = None
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    id_bounds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point):
            raise BadInput(f"tensor {self.name}: {len(self.scale)} scales, {len(self.zero_point)} zero points.")
        if any(size < -1 for size in self.shape):
            raise BadInput(f"tensor {self.name}: shape {self.shape}: sizes must be -1 (dynamic) or at least 0.")


def to_layout(array: np.ndarray, have: Layout | None, want: Layout | None) -> np.ndarray:
    """A batch of images in another layout; arrays without a layout pass unchanged."""
    if have == want or have is None or want is None:
        return array
    axes = (0, 2, 3, 1) if want == "NHWC" else (0, 3, 1, 2)
    moved: np.ndarray = np.ascontiguousarray(array.transpose(axes))
    return moved


def encode_input(array: np.ndarray, *, source: TensorInfo, target: TensorInfo) -> np.ndarray:
    """Values as the source model takes them, as the artifact takes them: layout, integer width, quantization.

    Raises:
        BadInput: An integer does not fit the artifact's type.
    """
    values: np.ndarray = to_layout(np.asarray(array), source.layout, target.layout)
    kind = np.dtype(target.dtype)
    if target.scale:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        scaled = np.rint(values.astype(np.float64) / target.scale[0]) + target.zero_point[0]
        quantized: np.ndarray = np.clip(scaled, low, high).astype(kind)
        return quantized
    if kind.kind in "iu" and values.size:
        low, high = np.iinfo(kind).min, np.iinfo(kind).max
        if values.min() < low or values.max() > high:
            raise BadInput(f"input {target.name}: values outside {target.dtype} ({values.min()} to {values.max()}).")
    return np.ascontiguousarray(values, dtype=kind)


def dequantize_output(array: np.ndarray, info: TensorInfo) -> np.ndarray:
    """An output as float32 real values."""
    values: np.ndarray = array.astype(np.float32)
    if info.scale:
        values = (values - np.float32(info.zero_point[0])) * np.float32(info.scale[0])
    return values
