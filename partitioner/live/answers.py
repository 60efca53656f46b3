"""Is what came back an answer? The right tensors, the right shapes and types, and no NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_deploy.core.tensor import TensorInfo

__all__ = ["wrong_with"]


def wrong_with(arrays: Mapping[str, np.ndarray], wanted: Sequence[TensorInfo]) -> str:
    """What is wrong, in one sentence; empty for an answer that can be given to the caller."""
    for info in wanted:
        array = arrays.get(info.name)
        if array is None:
            return f"output {info.name} is missing"
        if array.dtype != _held(info.dtype):
            return f"output {info.name} has type {array.dtype}, must be {info.dtype}"
        if len(array.shape) != len(info.shape) or any(
            want not in (-1, have) for have, want in zip(array.shape, info.shape, strict=True)
        ):
            return f"output {info.name} has shape {array.shape}, must be {info.shape}"
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"output {info.name} holds NaN or infinity"
    return ""


def _held(dtype: str) -> np.dtype:
    narrow = {"int4": "int8", "int2": "int8", "uint4": "uint8"}
    return np.dtype(narrow.get(dtype, dtype))
