"""What `topk` and `threshold` in `runtimes.codecs` share: their option, and how far a value is from zero."""

from __future__ import annotations

import math
import re

import numpy as np

from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo
from runtimes.codecs.raw import Raw
from runtimes.codecs.requantize import Requantize
from runtimes.contracts import Codec

__all__ = ["magnitudes", "parse_kept_share", "values_info"]

_OPTION = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%(-int8)?\Z")


def parse_kept_share(name: str, option: str) -> tuple[float, Codec]:
    """The share that is kept, and the codec of the values that are: "10%" in their own type, "10%-int8" as INT8.

    Raises:
        BadInput: Something else.
    """
    found = _OPTION.match(option)
    share = float(found.group(1)) / 100 if found else math.nan
    if found is None or not 0 < share <= 1:
        raise BadInput(
            f"codec {name}:{option}: must be the share of values to keep, e.g. {name}:10% or {name}:5%-int8."
        )
    return share, Requantize(bits=8) if found.group(2) else Raw()


def magnitudes(array: np.ndarray, rest: int) -> np.ndarray:
    """How far each value is from the one that stands for zero; in a type that holds it. NaN is the farthest."""
    if array.dtype.kind == "f":
        found = np.abs(array)
        return np.where(np.isnan(found), np.inf, found) if np.isnan(found).any() else found
    return np.abs(array.astype(np.int32) - rest)


def values_info(tensor: TensorInfo, count: int) -> TensorInfo:
    """The kept values as a tensor of their own."""
    return TensorInfo(
        name=tensor.name, shape=(count,), dtype=tensor.dtype, scale=tensor.scale, zero_point=tensor.zero_point
    )
