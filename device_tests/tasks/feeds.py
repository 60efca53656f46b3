"""From a task's items to what a model takes, and from what it gives to scores: preprocessing, layout, quantization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from device_tests.tasks.task import Task
from edge_deploy.core.artifact import Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo, dequantize_output, encode_input, to_layout
from edge_deploy.zoo.description import Preprocess

__all__ = ["Feed", "feed_of", "scores_of"]

PIXELS = (0.0, 255.0)
MOST_OF_A_RANGE = 0.5


class Feed:
    """Turns raw samples [n, *shape] into the arrays of a signature [n, *its shape], and keeps the real values.

    Attributes:
        note: What a reader should know of the preprocessing; empty when it is the task's own.
    """

    def __init__(self, task: Task, signature: Signature, source: tuple[TensorInfo, ...]) -> None:
        self._task, self._signature = task, signature
        self._sources = {info.name: info for info in source}
        self._process, self.note = _process(task, signature, source)

    def arrays(self, raw: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Arrays [n, *shape] by input name as the model takes them, and the first input's real values [n, values].

        Raises:
            BadInput: The samples have another number of values than the model takes.
        """
        encoded: dict[str, np.ndarray] = {}
        reals: list[np.ndarray] = []
        for info in self._signature.inputs:
            values = raw.get(info.name, raw.get("", next(iter(raw.values()))))
            source = self._sources.get(info.name, replace(info, dtype="float32") if info.scale else info)
            real = self._real(np.asarray(values), source)
            encoded[info.name] = encode_input(real, source=source, target=info).reshape(len(values), *_call(info))
            reals.append(real.reshape(len(values), -1))
        return encoded, reals[0]

    def _real(self, values: np.ndarray, source: TensorInfo) -> np.ndarray:
        """The source model's terms: preprocessed, in its layout and shape."""
        if not self._task.data.arrays:
            values = apply(self._process, values)
        shape = tuple(max(size, 1) for size in source.shape[1:])
        if values.shape[1:] == shape:
            return values
        if source.layout == "NCHW" or (values.ndim == 4 and shape == (values.shape[3], *values.shape[1:3])):
            values = to_layout(values, "NHWC", "NCHW")
        if math.prod(values.shape[1:]) != math.prod(shape):
            raise BadInput(
                f"{self._task.title}: samples of shape {values.shape[1:]}: input {source.name} takes {shape}."
            )
        return values.reshape(len(values), *shape)


def feed_of(task: Task, signature: Signature, source: tuple[TensorInfo, ...]) -> Feed:
    """How the task's samples reach a model.

    Args:
        source: The float model's inputs, from a manifest; empty for a bare file.

    Raises:
        BadInput: The signature takes several samples at a time.
    """
    several = [info for info in signature.inputs if info.shape and info.shape[0] > 1]
    if several and not task.data.arrays:
        raise BadInput(f"input {several[0].name}: a batch of {several[0].shape[0]}: tasks need a signature of batch 1.")
    return Feed(task, signature, source)


def scores_of(task: Task, outputs: np.ndarray, info: TensorInfo, reals: np.ndarray) -> np.ndarray:
    """One score for each sample: the output's real values [n, classes], or the reconstruction's error [n].

    Args:
        outputs: Of the first output, [n, *shape].
        reals: The first input's real values [n, values].

    Raises:
        BadInput: A reconstruction of another size than its input, or values that are not finite.
    """
    real = dequantize_output(outputs, info).reshape(len(outputs), -1).astype(np.float64)
    if not np.isfinite(real).all():
        raise BadInput(f"output {info.name}: {int((~np.isfinite(real)).sum())} values are NaN or infinite.")
    if task.score == "output":
        return real
    if real.shape != reals.shape:
        raise BadInput(f"output {info.name}: {real.shape[1]} values: a reconstruction must have {reals.shape[1]}.")
    errors: np.ndarray = np.square(real - reals).mean(axis=1)
    return errors


def apply(process: Preprocess, values: np.ndarray) -> np.ndarray:
    """((value - zero) * scale / divide - mean) / std along the last axis; see `edge_deploy.zoo.description`."""
    exact = (values.astype(np.float64) - process.zero) * process.scale / process.divide
    exact = (exact - np.asarray(process.mean or 0.0)) / np.asarray(process.std or 1.0)
    real: np.ndarray = exact.astype(np.float32)
    return real


def _call(info: TensorInfo) -> tuple[int, ...]:
    return tuple(max(size, 1) for size in info.shape)


def _process(task: Task, signature: Signature, source: tuple[TensorInfo, ...]) -> tuple[Preprocess, str]:
    """The task's preprocessing, or the one that the artifact itself names or shows by its input's range."""
    known = next((info for info in source if info.mean and info.std), None)
    if known is not None:
        own = Preprocess(mean=known.mean, std=known.std)
        grey = np.full(_sample_shape(task), 100.0)
        same = np.allclose(apply(own, grey), apply(task.preprocess, grey))
        return own, "" if same else "preprocessed as the manifest says, not as the task does"
    info = signature.inputs[0]
    if task.data.dtype == "uint8" and len(info.scale) == 1 and info.dtype in ("int8", "uint8"):
        return _by_range(task, info)
    return task.preprocess, ""


def _by_range(task: Task, info: TensorInfo) -> tuple[Preprocess, str]:
    """Pixels for an 8-bit input: where its range is not that of the task, bytes go in one to one.

    MLPerf Tiny's harness does the same: pixel - 128 for int8. It is right for every normalization that was calibrated
    on all pixel values, and it shows in the range of the input, e.g. -1 to 1. A range that is most of the task's is the
    task's, calibrated on pictures without its darkest or brightest pixels: bytes as they are would change the contrast.
    """
    limits = np.iinfo(np.dtype(info.dtype))
    low, high = ((limit - info.zero_point[0]) * info.scale[0] for limit in (limits.min, limits.max))
    wanted = apply(task.preprocess, np.array(PIXELS))
    step = info.scale[0]
    if abs(low - wanted[0]) <= 2 * step and abs(high - wanted[1]) <= 2 * step:
        return task.preprocess, ""
    seen = f"input takes {low:.3g} to {high:.3g} and the task has {wanted[0]:.3g} to {wanted[1]:.3g}"
    is_inside = low >= wanted[0] - 2 * step and high <= wanted[1] + 2 * step
    if is_inside and high - low >= MOST_OF_A_RANGE * (wanted[1] - wanted[0]):
        return task.preprocess, f"{seen}: pixels beyond are cut off"
    # real = scale * (byte + limits.min - zero_point)
    own = Preprocess(zero=float(info.zero_point[0] - limits.min), scale=step)
    return own, f"{seen}: bytes go in 1:1"


def _sample_shape(task: Task) -> tuple[int, ...]:
    return task.data.shape or (1,)
